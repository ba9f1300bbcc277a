// The loan app's backend, as far as it talks to Bugle: wsService of its document, each function one RPC.
//
//   node backend.mjs emitLoanStatusUpdate alice loan-1 approved 500
//
// makes one call and prints its answer. Without arguments it reads calls from standard input, a list in JSON a line, and answers each
// with a line.
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

const { BUGLE_SERVER = 'http://127.0.0.1:50051', BUGLE_API_KEY } = process.env;

const proto = fileURLToPath(new URL('../../../proto', import.meta.url));
const { bugle } = grpc.loadPackageDefinition(
  loadSync('bugle/v1/notify.proto', { includeDirs: [proto], keepCase: true, longs: Number, enums: String, defaults: true }),
);
const notify = new bugle.v1.Notify(new URL(BUGLE_SERVER).host, grpc.credentials.createInsecure());
const metadata = new grpc.Metadata();
metadata.set('authorization', `Bearer ${BUGLE_API_KEY}`);

async function emit(method, audience, event, data, options) {
  // Members that are undefined, such as no rejectionReason, are left out.
  const json = JSON.stringify({ ...data, timestamp: new Date() });
  const call = promisify(notify[method]).bind(notify);
  const { receipt } = await call({ ...audience, event, json, options }, metadata, { deadline: Date.now() + 5_000 });
  const { matched, enqueued, dropped } = receipt;
  return { matched, enqueued, dropped };
}
const toAdmins = (event, data, options) => emit('EmitToRoom', { room: 'role:admin' }, event, data, options);
const toUser = (userId, event, data) => emit('EmitToUser', { user_id: userId }, event, { ...data, userId });
const toMarketplace = (event, data) => emit('EmitToRoom', { room: 'marketplace' }, event, data);

const wsService = {
  /** A user asks for a loan: `{ loanId, userId, amount, purpose, collateral }`. */
  emitLoanRequest: (loanData) => toAdmins('loan:new', loanData),
  /** `type`: loan_request, kyc_submission or system_alert. Kept, so that each admin has an unread counter. */
  emitAdminNotification: (type, message, data) => toAdmins('admin:notification', { type, message, data }, { store: true }),
  /** `status`: approved or rejected. */
  emitLoanStatusUpdate: (userId, loanId, status, amount, rejectionReason) =>
    toUser(userId, 'loan:status', { loanId, status, amount, rejectionReason }),
  emitLoanFunded: (userId, loanId, txHash, nftId, amount) => toUser(userId, 'loan:funded', { loanId, txHash, nftId, amount }),
  /** `status`: approved or rejected. */
  emitKycStatusUpdate: (userId, status, rejectionReason) => toUser(userId, 'kyc:status', { status, rejectionReason }),
  /** `type`: new_listing, ownership_transfer or repayment. */
  emitMarketplaceUpdate: (type, loanId, nftId, amount) => toMarketplace('marketplace:update', { type, loanId, nftId, amount }),
};

async function answer([call, ...args]) {
  try {
    console.log(JSON.stringify({ call, answer: await wsService[call](...args.map((arg) => arg ?? undefined)) }));
  } catch (refusal) {
    console.log(JSON.stringify({ call, refused: grpc.status[refusal.code], message: refusal.details }));
    return false;
  }
  return true;
}

const args = process.argv.slice(2).map((text) => (/^([[{]|-?\d+(\.\d+)?$)/.test(text) ? JSON.parse(text) : text));
if (args.length > 0) {
  process.exitCode = (await answer(args)) ? 0 : 1;
} else {
  for await (const line of createInterface({ input: process.stdin })) await answer(JSON.parse(line));
}
notify.close();
