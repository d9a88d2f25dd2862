# Makes an account and a key of its own, calls the data plane with the key, and finds the row of that call in the log.
# The account's tier lets little through, and everything is removed at the end. Needs a POSIX shell and curl.
#
# ADMIN_URL, DATA_URL, TOKEN_FILE; ADMIN_CA when the admin API has TLS; DATA_CERT and DATA_KEY when the data plane asks for one.
name=helm-test
say() { printf '%s\n' "$*" >&2; }
# The token goes in by stdin, never by the command line.
api() { # METHOD PATH [BODY]
  printf 'header = "Authorization: Bearer %s"\n' "$(cat "$TOKEN_FILE")" |
    curl -sS --fail-with-body --max-time 20 --config - ${ADMIN_CA:+--cacert "$ADMIN_CA"} \
      -X "$1" "$ADMIN_URL$2" ${3:+-H 'Content-Type: application/json' --data-binary "$3"}
}
field() { # NAME: the first text of that name on stdin
  sed -n "s/.*\"$1\" *: *\"\([^\"]*\)\".*/\1/p" | head -n 1
}
clean() {
  # An account goes when its keys are revoked, a tier when no account has it.
  for id in $(api GET "/v1/accounts/$name/keys" 2>/dev/null | grep -o '"key_[0-9A-Za-z]*"' | tr -d '"'); do
    api DELETE "/v1/keys/$id" >/dev/null 2>&1 || true
  done
  api DELETE "/v1/accounts/$name" >/dev/null 2>&1 || true
  api DELETE "/v1/tiers/$name" >/dev/null 2>&1 || true
}

for attempt in 1 2 3 4 5 6 7 8 9 10 11 12; do
  curl -s --fail --max-time 5 ${ADMIN_CA:+--cacert "$ADMIN_CA"} "$ADMIN_URL/readyz" >/dev/null && break
  [ "$attempt" -lt 12 ] || { say "no node is ready after a minute"; exit 1; }
  sleep 5
done

clean
trap clean EXIT
api PUT "/v1/tiers/$name" '{"limits": [{"name": "few", "per": ["account"], "rate": "1/s", "burst": 5}]}' >/dev/null
api POST /v1/accounts "{\"id\": \"$name\", \"name\": \"$name\", \"tier\": \"$name\"}" >/dev/null
key=$(api POST "/v1/accounts/$name/keys" '{"name": "helm test"}' | field secret)
[ -n "$key" ] || { say "no key was made"; exit 1; }

# Whatever the routes are, the answer to a known key has a row; without a route for this path it is a 404.
# -k: the certificate of the data plane is for the names that clients call, and this is the Service's.
answer=$(printf 'header = "X-API-Key: %s"\n' "$key" |
  curl -sS -k --max-time 20 --config - ${DATA_CERT:+--cert "$DATA_CERT" --key "$DATA_KEY"} -o /dev/null -D - "$DATA_URL/helm-test-$$" | tr -d '\r')
id=$(printf '%s\n' "$answer" | sed -n 's/^[Xx]-[Rr]equest-[Ii]d: *//p' | head -n 1)
status=$(printf '%s\n' "$answer" | sed -n '1s/^[^ ]* \([0-9]*\).*/\1/p')
case $status in
  401 | 503 | '') say "the data plane answered: $answer"; exit 1 ;;
esac
[ -n "$id" ] || { say "no X-Request-Id in: $answer"; exit 1; }

row=$(api GET "/v1/requests/$id")
account=$(printf '%s' "$row" | field account)
[ "$account" = "$name" ] || { say "the row of $id is: $row"; exit 1; }
say "request $id was answered with $status, and its row is in the log"
