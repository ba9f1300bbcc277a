// The player's page: `node device.mjs BASE_URL TOKEN`. Prints a JSON line for all that happens.
// A line on standard input, {"token": "…"}, is a token that the page has refreshed.
import { createInterface } from 'node:readline';

import { WebSocket as Socket } from 'ws';

const [baseUrl, token] = process.argv.slice(2);
const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

console.log = (text) => print({ log: text });
console.error = (text) => print({ error: text });

// The browser's WebSocket; else nothing would tell what the class does not listen for.
class WebSocket extends Socket {
  constructor(url) {
    super(url);
    this.addEventListener('message', ({ data }) => print({ frame: data }));
    this.addEventListener('close', ({ code, reason }) => print({ closed: code, reason }));
  }
}

// From here on as in the app's document.
class BalanceWebSocketService {
  constructor(baseUrl, token) {
    this.baseUrl = baseUrl;
    this.token = token;
    this.ws = null;
    this.reconnectAttempts = 0;
    this.maxReconnectAttempts = 5;
    this.reconnectDelay = 1000;
    this.listeners = new Set();
  }

  connect() {
    try {
      this.ws = new WebSocket(`${this.baseUrl}/ws/balance/player`);
      
      this.ws.onopen = () => {
        console.log('Balance WebSocket connected');
        this.reconnectAttempts = 0;
        this.authenticate();
      };
      
      this.ws.onmessage = (event) => {
        const data = JSON.parse(event.data);
        this.notifyListeners(data);
      };
      
      this.ws.onerror = (error) => {
        console.error('Balance WebSocket error:', error);
      };
      
      this.ws.onclose = () => {
        console.log('Balance WebSocket disconnected');
        this.handleReconnection();
      };
      
    } catch (error) {
      console.error('Failed to create WebSocket connection:', error);
    }
  }

  authenticate() {
    if (this.ws && this.ws.readyState === WebSocket.OPEN) {
      this.ws.send(JSON.stringify({
        type: "auth",
        access_token: this.token,
        data: {}
      }));
    }
  }

  addListener(callback) {
    this.listeners.add(callback);
  }

  removeListener(callback) {
    this.listeners.delete(callback);
  }

  notifyListeners(data) {
    this.listeners.forEach(callback => callback(data));
  }

  handleReconnection() {
    if (this.reconnectAttempts < this.maxReconnectAttempts) {
      this.reconnectAttempts++;
      console.log(`Attempting to reconnect... (${this.reconnectAttempts}/${this.maxReconnectAttempts})`);
      
      setTimeout(() => {
        this.connect();
      }, this.reconnectDelay * this.reconnectAttempts);
    } else {
      console.error('Max reconnection attempts reached');
      // Fallback to REST API polling
      this.fallbackToRestAPI();
    }
  }

  fallbackToRestAPI() {
    // Implement REST API polling as fallback
    console.log('Falling back to REST API for balance updates');
    // Your REST API polling implementation here
  }

  disconnect() {
    if (this.ws) {
      this.ws.close();
      this.ws = null;
    }
  }

  updateToken(newToken) {
    this.token = newToken;
    if (this.ws && this.ws.readyState === WebSocket.OPEN) {
      this.authenticate();
    }
  }
}
// Up to here.

/** The document leaves the fallback open: here it asks Bugle for the last balance, now and then. */
class Player extends BalanceWebSocketService {
  async fallbackToRestAPI() {
    super.fallbackToRestAPI();
    const url = `${this.baseUrl.replace(/^ws/, 'http')}/bugle/retained/balance`;
    const poll = async () => {
      const answer = await fetch(url, { headers: { authorization: `Bearer ${this.token}` } }).catch(() => undefined);
      print({ fetched: answer?.status });
      if (answer?.ok) this.notifyListeners(await answer.json());
      setTimeout(poll, 5 * this.reconnectDelay);
    };
    await poll();
  }
}

const service = new Player(baseUrl, token);
// So that nobody has to wait who only wants to see that it comes back.
if (process.env.RECONNECT_DELAY) service.reconnectDelay = Number(process.env.RECONNECT_DELAY);
service.addListener((data) => print({ listener: 'header', data }));
service.addListener((data) => print({ listener: 'cashier', data }));
service.connect();

createInterface({ input: process.stdin }).on('line', (line) => service.updateToken(JSON.parse(line).token));
process.on('SIGTERM', () => process.exit());
