import assert from 'node:assert/strict';
import { test } from 'node:test';

import { addressOf } from './connection.js';
import { tokenOf } from './crowd.js';
import { browserRequest, frame, parseFrame, parseResponse, TEXT, upgradeRequest } from './wire.js';

/** A server's frame, which is not masked. */
function unmasked(payload) {
  const body = Buffer.from(payload);
  const length = body.length < 126 ? [body.length] : body.length < 65_536 ? [126, body.length >> 8, body.length & 0xff] : [127, 0, 0, 0, 0, 0, 1, 0, 0];
  return Buffer.concat([Buffer.from([0x80 | TEXT, ...length]), body]);
}

test('a frame of each length is parsed once it is complete', () => {
  for (const size of [0, 125, 126, 65_535, 65_536]) {
    const bytes = unmasked('x'.repeat(size));
    const { item, length } = parseFrame(Buffer.concat([bytes, unmasked('next')]));
    assert.deepEqual([item.opcode, item.payload.length, length], [TEXT, size, bytes.length]);
    for (const part of [0, 1, bytes.length - 1]) assert.equal(parseFrame(bytes.subarray(0, part)), undefined, `${part} of ${bytes.length}`);
  }
});

test('a sent frame is masked, with a length of two bytes from 126 on', () => {
  for (const [size, head] of [[5, 6], [126, 8]]) {
    const bytes = frame(TEXT, 'x'.repeat(size));
    assert.equal(bytes[1] & 0x80, 0x80);
    const mask = bytes.subarray(head - 4, head);
    const body = bytes.subarray(head).map((byte, index) => byte ^ mask[index % 4]);
    assert.equal(body.toString(), 'x'.repeat(size));
  }
});

test('an answer is parsed once its body is there, and the answer to an upgrade has none', () => {
  const answer = Buffer.from('HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcHTTP');
  assert.deepEqual(parseResponse(answer), { item: { status: 200, body: 'abc' }, length: answer.length - 4 });
  assert.equal(parseResponse(answer.subarray(0, -5)), undefined);
  assert.equal(parseResponse(answer.subarray(0, 20)), undefined);
  const upgraded = Buffer.from('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x00', 'latin1');
  assert.deepEqual(parseResponse(upgraded), { item: { status: 101, body: '' }, length: upgraded.length - 2 });
  assert.throws(() => parseResponse(Buffer.from('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')), /without Content-Length/);
});

test('every request of a device has the headers of a browser', () => {
  for (const text of [browserRequest('GET', '/a'), browserRequest('POST', '/a', 'ä'), upgradeRequest('/a')]) {
    for (const name of ['User-Agent: Mozilla', 'Accept-Encoding', 'Accept-Language', 'Cache-Control', 'Pragma']) assert.ok(text.includes(`\r\n${name}`), name);
  }
  assert.match(browserRequest('POST', '/a', 'ä'), /^POST \/a HTTP\/1\.1\r\n.*\r\nContent-Length: 2\r\n\r\nä$/s);
  assert.doesNotMatch(browserRequest('GET', '/a'), /Content-Length/);
});

test('an address has 250 devices', () => {
  assert.deepEqual([0, 249, 250, 62_499, 62_500].map(addressOf), ['127.1.1.1', '127.1.1.1', '127.1.1.2', '127.1.1.250', '127.1.2.1']);
});

test('a token is a JWT for its user', () => {
  const [head, claims, signature] = tokenOf('a', 'secret').split('.');
  assert.deepEqual(JSON.parse(Buffer.from(head, 'base64url')), { alg: 'HS256', typ: 'JWT' });
  assert.equal(JSON.parse(Buffer.from(claims, 'base64url')).sub, 'a');
  assert.equal(Buffer.from(signature, 'base64url').length, 32);
});
