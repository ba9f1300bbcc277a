import { collectDefaultMetrics, register } from 'prom-client';

/** Answers `/metrics`, for a port of its own. */
export function metrics() {
  collectDefaultMetrics();
  return async (request, response) => {
    if (request.url !== '/metrics') {
      response.writeHead(404).end();
      return;
    }
    try {
      const text = await register.metrics();
      response.writeHead(200, { 'Content-Type': register.contentType }).end(text);
    } catch (error) {
      response.writeHead(500).end(error.message);
    }
  };
}
