/** What is sent at the same time, half an interval apart: to each user a message of its own, and one message to the room of all. */
export const LOADS = [
  { name: 'user', event: 'note' },
  { name: 'room', event: 'price' },
];

export const ROOM = 'listing:flapping';

/** The name of a device's user. */
export function userOf(device) {
  return `user-${device}`;
}
