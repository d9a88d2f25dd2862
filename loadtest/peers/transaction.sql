-- What a gateway on PostgreSQL does for each request, in one transaction: is the key known, is there quota left, a log row.
\set account random(1, :accounts)
BEGIN;
SELECT account FROM keys WHERE hash = 'key-' || :account;
UPDATE quotas SET used = used + 1 WHERE account = :account AND used < limited RETURNING used;
INSERT INTO log (account, key_id, method, path, status, outcome, bytes_in, bytes_out, duration_us, client_ip)
  VALUES (:account, 'key-' || :account, 'POST', '/v3/scan', 200, 'admitted', 250, 16, 900, '127.0.0.1');
COMMIT;
