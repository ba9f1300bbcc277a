#!/bin/sh
# Tells a player's devices the new balance, and prints the receipt: ./backend.sh USER BALANCE [CURRENCY]
# Calls Bugle at BUGLE_SERVER (default http://127.0.0.1:50051) with BUGLE_API_KEY; BUGLE is the binary.
set -eu

player=${1:?a user} balance=${2:?a balance, such as 255.50} currency=${3:-USD}

# They go into JSON as they are.
case $player$currency in *[!A-Za-z0-9_-]*) echo 'Not a user or a currency.' >&2; exit 64 ;; esac
case $balance in '' | *[!0-9.-]*) echo 'Not a balance.' >&2; exit 64 ;; esac

# Retained: a device that comes later, or asks GET /bugle/retained/balance, gets it too.
# Collapsed: a device that would get many within a moment gets the last one.
printf '{"user_id":"%s","balance":"%s","currency":"%s"}' "$player" "$balance" "$currency" |
  "${BUGLE:-bugle}" emit user "$player" balance - --retain --collapse-key balance
