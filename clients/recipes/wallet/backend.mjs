// The wallet app's own REST API: `node backend.mjs [PORT]`, 3001 unless told. Each thing that happens to wallets is told to their
// users by one EmitBatch. Accounts are in memory; what matters here is what is told when.
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import jwt from 'jsonwebtoken';

const { BUGLE_SERVER = 'http://127.0.0.1:50051', BUGLE_API_KEY, JWT_SECRET } = process.env;

// --- Telling Bugle

const proto = fileURLToPath(new URL('../../../proto', import.meta.url));
const { bugle } = grpc.loadPackageDefinition(
  loadSync('bugle/v1/notify.proto', { includeDirs: [proto], keepCase: true, longs: Number, enums: String, oneofs: true }),
);
const client = new bugle.v1.Notify(new URL(BUGLE_SERVER).host, grpc.credentials.createInsecure());
const metadata = new grpc.Metadata();
metadata.set('authorization', `Bearer ${BUGLE_API_KEY}`);
const emitBatch = promisify(client.EmitBatch).bind(client);

/** Tells users what happened to their wallets. The money has moved by then: a failure to tell is logged and undoes nothing. */
async function notify(changes) {
  const emit = (user, event, payload) => ({ user_id: user, event, json: JSON.stringify(payload) });
  const emits = changes.flatMap(({ wallet, transactions }) => [
    emit(wallet.userId, 'WALLET_UPDATE', { walletId: wallet.walletId, balance: decimal(wallet.balance) }),
    ...transactions.map(({ transactionId }) =>
      emit(wallet.userId, 'TRANSACTION_CREATED', { transactionId, walletId: wallet.walletId }),
    ),
  ]);
  try {
    const { results } = await emitBatch({ emits }, metadata, { deadline: Date.now() + 2_000 });
    for (const { error } of results) if (error) console.error(`not told: ${error.message}`);
  } catch (error) {
    console.error(`not told: ${error.message}`);
  }
}

// --- Accounts

const wallets = new Map();
const timeDeposits = new Map();

class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

function walletOf(userId) {
  if (!wallets.has(userId)) wallets.set(userId, { userId, walletId: randomUUID(), balance: 0n, transactions: [] });
  return wallets.get(userId);
}

function cents(amount) {
  const [, whole, part = ''] = /^(\d{1,12})(?:\.(\d{1,2}))?$/.exec(amount) ?? [];
  const value = whole === undefined ? 0n : BigInt(whole + part.padEnd(2, '0'));
  if (value === 0n) throw new Refusal(400, 'amount: a text such as "12.50"');
  return value;
}

function decimal(value) {
  const digits = value.toString().padStart(3, '0');
  return `${digits.slice(0, -2)}.${digits.slice(-2)}`;
}

/** Writes one transaction into a wallet: how `notify` takes it. */
function book(wallet, kind, amount, transactionId = randomUUID()) {
  if (wallet.balance + amount < 0n) throw new Refusal(409, 'the balance is too low');
  wallet.balance += amount;
  wallet.transactions.push({ transactionId, kind });
  return { wallet, transactions: [{ transactionId }] };
}

function timeDeposit(id, status) {
  const deposit = timeDeposits.get(id);
  if (deposit?.status !== status) throw new Refusal(deposit ? 409 : 404, `no time deposit that is ${status}`);
  return deposit;
}

// --- The flows of the document: what changes, to be told

const flows = {
  'POST /transfers': ({ user, body }) => {
    const [source, destination, amount] = [walletOf(user), walletOf(String(body.to)), cents(body.amount)];
    if (source === destination) throw new Refusal(400, 'to: another user');
    const sent = book(source, 'transfer', -amount);
    return [sent, book(destination, 'transfer', amount, sent.transactions[0].transactionId)];
  },
  'POST /deposits': ({ user, body }) => [book(walletOf(user), 'deposit', cents(body.amount))],
  'POST /withdrawals': ({ user, body }) => [book(walletOf(user), 'withdrawal', -cents(body.amount))],
  'POST /time-deposits/:id/approval': ({ id }) => {
    const deposit = timeDeposit(id, 'pending');
    const change = book(walletOf(deposit.user), 'time deposit', -deposit.amount);
    deposit.status = 'approved';
    return [change];
  },
  'POST /time-deposits/:id/cancellation': ({ id }) => {
    const deposit = timeDeposit(id, 'approved');
    deposit.status = 'cancelled';
    return [book(walletOf(deposit.user), 'time deposit cancelled', deposit.amount)];
  },
  'POST /time-deposits/:id/dividends': ({ id, body }) => {
    const deposit = timeDeposit(id, 'approved');
    const { wallet, transactions } = book(walletOf(deposit.user), 'dividend', cents(body.amount));
    if (!body.last) return [{ wallet, transactions }];
    deposit.status = 'paid';
    const principal = book(wallet, 'time deposit returned', deposit.amount);
    return [{ wallet, transactions: [...transactions, ...principal.transactions] }];
  },
};

const answers = {
  'GET /wallets/main': ({ user }) => ({ walletId: walletOf(user).walletId, balance: decimal(walletOf(user).balance) }),
  'GET /transactions': ({ user }) => walletOf(user).transactions,
  'POST /time-deposits': ({ user, body }) => {
    const id = randomUUID();
    timeDeposits.set(id, { user, amount: cents(body.amount), status: 'pending' });
    return { id };
  },
};

// --- REST

function callerOf(request, id) {
  let claims;
  try {
    claims = jwt.verify(request.headers.authorization?.replace(/^Bearer /, ''), JWT_SECRET, { algorithms: ['HS256'] });
  } catch {
    throw new Refusal(401, 'Invalid or expired token');
  }
  if (id && claims.role !== 'admin') throw new Refusal(403, 'for admins');
  return claims.sub;
}

async function readJson(request) {
  let text = '';
  for await (const part of request.setEncoding('utf8')) {
    text += part;
    if (text.length > 10_000) throw new Refusal(413, 'the body is too large');
  }
  try {
    return JSON.parse(text || '{}');
  } catch {
    throw new Refusal(400, 'the body is not JSON');
  }
}

async function answer(request) {
  const [, resource, id, step] = request.url.split('/');
  const route = step ? `${request.method} /${resource}/:id/${step}` : `${request.method} ${request.url}`;
  if (!(route in flows) && !(route in answers)) throw new Refusal(404, 'there is nothing here');
  const call = { user: callerOf(request, step && id), id, body: await readJson(request) };
  if (route in answers) return answers[route](call);
  const changes = flows[route](call);
  await notify(changes);
  return { transactionIds: changes[0].transactions.map(({ transactionId }) => transactionId) };
}

const server = createServer(async (request, response) => {
  let [status, body] = [200];
  try {
    body = await answer(request);
  } catch (error) {
    if (!error.status) console.error(error);
    [status, body] = [error.status ?? 500, { error: error.status ? error.message : 'failed' }];
  }
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
});
server.listen(Number(process.argv[2] ?? 3001), '127.0.0.1', () => {
  console.log(JSON.stringify({ listening: `http://127.0.0.1:${server.address().port}` }));
});
