#!/bin/sh
# `zbank keys …` on the folder with all keys (ZBANK_KEYS), then hands them out: into each folder of ZBANK_PARTS goes the list,
# and the secret of the part that the folder is named after. Run again it makes no second keys; it hands out anew.
set -eu

keys=${ZBANK_KEYS:?} parts=${ZBANK_PARTS:-/parts} owner=${ZBANK_OWNER:-10001}

if [ "${1:-}" != init ] || [ ! -e "$keys/keys.toml" ]; then
    zbank keys "$@"
fi
chmod 700 "$keys"

hand_out() {  # FILE FOLDER MODE: whole or not at all, and never readable by others: the part looks at it every second
    umask 077
    rm -f "$2/.$1.new"  # of a time when this was cut short
    cp "$keys/$1" "$2/.$1.new"
    chmod "$3" "$2/.$1.new"
    [ "$(id -u)" != 0 ] || chown "$owner" "$2/.$1.new"
    mv "$2/.$1.new" "$2/$1"
}

# First all may know a new key, then its holder uses it.
for folder in "$parts"/*/; do
    hand_out keys.toml "${folder%/}" 644
done
for folder in "$parts"/*/; do
    name=$(basename "$folder")
    if [ -e "$keys/$name.secret" ]; then  # it is gone when the key was revoked
        hand_out "$name.secret" "${folder%/}" 600
    fi
done
