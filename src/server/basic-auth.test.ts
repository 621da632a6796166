import assert from 'node:assert/strict';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { hash } from '@node-rs/bcrypt';
import { captureLog } from '../../test/support/log.ts';
import { temporaryDirectory } from '../../test/support/temporary.ts';
import { until } from '../../test/support/until.ts';
import { isOciError } from '../oci/error.ts';
import { createBasicAuth, withBasicAuth } from './basic-auth.ts';
import { listen } from './listen.ts';

const COST = 6;
const basic = (user: string, password: string) => `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;
const line = async (user: string, password: string, cost = COST) => `${user}:${(await hash(password, cost)).replace('$2b$', '$2y$')}\n`;

test('only users in the file get access; others get a 401 with a challenge', async () => {
  await using folder = await temporaryDirectory();
  const file = join(folder.path, 'htpasswd');
  await writeFile(file, `# people\n\n${await line('alice', 'wonder:land')}${await line('bob', 'pässword')}carol:{SHA}abc\n`);
  const captured = await captureLog();
  const { log } = captured;
  const authenticate = await createBasicAuth({ file, log });
  const handler = withBasicAuth((_request, response) => void response.end('in'), authenticate);
  await using listener = await listen({ address: { host: '127.0.0.1', port: 0 }, handler, log });

  const ask = (authorization?: string) => fetch(listener.url, authorization === undefined ? {} : { headers: { authorization } });
  for (let turn = 0; turn < 2; turn++) {
    for (const [user, password] of [
      ['alice', 'wonder:land'],
      ['bob', 'pässword'],
    ] as const) {
      assert.equal((await ask(basic(user, password))).status, 200, user);
      assert.equal((await ask(basic(user, password).replace('Basic', 'basic'))).status, 200, user);
    }
    for (const header of [
      undefined,
      basic('alice', 'pässword'),
      basic('alice', ''),
      basic('bob', 'wonder:land'),
      basic('nobody', 'wonder:land'),
      basic('carol', 'abc'),
      basic('', ''),
      basic('Alice', 'wonder:land'),
      'Basic',
      'Basic !!!',
      `Basic ${'A'.repeat(5_000)}`,
      'Bearer abc',
    ]) {
      const response = await ask(header);
      assert.equal(response.status, 401, String(header));
      assert.match(response.headers.get('www-authenticate') ?? '', /^Basic realm=/);
      assert.equal(response.headers.get('docker-distribution-api-version'), 'registry/2.0');
      const { errors } = (await response.json()) as { errors: { code: string }[] };
      assert.equal(errors[0]?.code, 'UNAUTHORIZED');
    }
  }
  assert.match(JSON.stringify(captured.entries()), /ignoring htpasswd lines without a bcrypt hash/);
  assert.doesNotMatch(JSON.stringify(captured.entries()), /\$2y\$|wonder/);
});

test('a changed file takes effect within seconds, and while it is missing the last one stays in effect', async () => {
  await using folder = await temporaryDirectory();
  const file = join(folder.path, 'htpasswd');
  await writeFile(file, await line('alice', 'one'));
  const { log } = await captureLog();
  const authenticate = await createBasicAuth({ file, log });
  assert.equal(await authenticate(basic('alice', 'one')), true);

  await writeFile(file, await line('alice', 'two two'));
  await until(async () => !(await authenticate(basic('alice', 'one'))), 'the former password is refused');
  assert.equal(await authenticate(basic('alice', 'two two')), true);
  await rm(file);
  await sleep(1_100);
  assert.equal(await authenticate(basic('alice', 'two two')), true);
});

test('a password that was right is not hashed again', async () => {
  await using folder = await temporaryDirectory();
  const file = join(folder.path, 'htpasswd');
  await writeFile(file, `alice:${await hash('slow', 12)}\n`);
  const { log } = await captureLog();
  const authenticate = await createBasicAuth({ file, log });
  const time = async (count: number) => {
    const started = performance.now();
    for (let turn = 0; turn < count; turn++) assert.equal(await authenticate(basic('alice', 'slow')), true);
    return performance.now() - started;
  };
  const first = await time(1);
  assert.ok((await time(20)) < first * 2);
});

test('password guesses do not block correct logins, neither from the same address nor for the same user', async () => {
  await using folder = await temporaryDirectory();
  const file = join(folder.path, 'htpasswd');
  await writeFile(file, `${await line('alice', 'right', 4)}${await line('bob', 'right too', 4)}`);
  const { log } = await captureLog();
  const authenticate = await createBasicAuth({ file, log });
  const client = (address: string) => ({ address, isGone: () => false });
  const flood = Array.from({ length: 2100 }, (_, index) => authenticate(basic(`user ${index}`, 'wrong'), client('192.0.2.1')));
  const counted = Promise.allSettled(flood);
  assert.equal(await authenticate(basic('alice', 'right'), client('192.0.2.2')), true);
  assert.equal(await authenticate(basic('bob', 'right too'), client('192.0.2.1')), true);
  const results = await counted;
  const refused = results.filter((result) => result.status === 'rejected');
  assert.ok(refused.length > 1000, 'the queue is bounded');
  assert.ok(refused.every(({ reason }) => isOciError(reason, 'TOOMANYREQUESTS')));
  assert.ok(results.every((result) => result.status === 'rejected' || !result.value));
});

test('attempts of clients that have disconnected are not checked', async () => {
  await using folder = await temporaryDirectory();
  const file = join(folder.path, 'htpasswd');
  await writeFile(file, `alice:${await hash('right', 10)}\n`);
  const { log } = await captureLog();
  const authenticate = await createBasicAuth({ file, log });
  let gone = false;
  const client = { address: '192.0.2.1', isGone: () => gone };
  const flood = Promise.allSettled(Array.from({ length: 200 }, (_, index) => authenticate(basic('alice', `wrong ${index}`), client)));
  gone = true;
  const results = await flood;
  assert.ok(results.filter(({ status }) => status === 'rejected').length >= 190);
});

test('an unknown user costs as much time as a wrong password, whatever the cost of the hashes', async () => {
  await using folder = await temporaryDirectory();
  const { log } = await captureLog();
  for (const cost of [4, 9]) {
    const file = join(folder.path, `htpasswd-${cost}`);
    await writeFile(file, `alice:${await hash('right', cost)}\n`);
    const authenticate = await createBasicAuth({ file, log });
    const median = async (user: string): Promise<number> => {
      const times: number[] = [];
      for (let turn = 0; turn < 15; turn++) {
        const started = performance.now();
        assert.equal(await authenticate(basic(user, 'wrong')), false);
        times.push(performance.now() - started);
      }
      return times.sort((one, other) => one - other)[7] ?? 0;
    };
    const known = await median('alice');
    const unknown = await median('nobody');
    assert.ok(unknown < 4 * known && known < 4 * unknown, `cost ${cost}: ${known} ms known, ${unknown} ms unknown`);
  }
});

test('a file that is missing or has no user stops at start', async () => {
  await using folder = await temporaryDirectory();
  const { log } = await captureLog();
  const file = join(folder.path, 'htpasswd');
  await assert.rejects(createBasicAuth({ file, log }), (error) => isOciError(error, 'UNAVAILABLE') && error.message.includes('ENOENT'));
  await writeFile(file, 'alice:plain\n');
  await assert.rejects(
    createBasicAuth({ file, log }),
    (error) => isOciError(error, 'UNAVAILABLE') && error.message.includes('htpasswd -B'),
  );
});
