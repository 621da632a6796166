import assert from 'node:assert/strict';
import { afterEach, beforeEach, mock, test } from 'node:test';
import type { OciError } from '../oci/error.ts';
import { createShortLivedLogin, type Login } from './short-lived-login.ts';

const HOUR_MS = 3_600_000;
const messages: string[] = [];
const options = {
  issuer: 'Cloud (registry.example)',
  advice: 'check it',
  onRenewalFailed: (error: OciError) => messages.push(error.message),
};

beforeEach(() => {
  mock.timers.enable({ apis: ['Date', 'setTimeout'], now: Date.UTC(2030, 0) });
  messages.length = 0;
});
afterEach(() => mock.timers.reset());

/** A cloud that issues passwords 1, 2, 3, … for an hour each, unless it fails. */
function createCloud(lifeMs = HOUR_MS) {
  const cloud = { asked: 0, problem: undefined as Error | undefined, logIn };
  function logIn(this: void): Promise<Login> {
    cloud.asked++;
    if (cloud.problem !== undefined) return Promise.reject(cloud.problem);
    return Promise.resolve({ username: 'user', password: String(cloud.asked), expires: Date.now() + lifeMs });
  }
  return cloud;
}

/** Lets the promises of a renewal in the background settle. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
}

test('all callers that wait share one login, which is used until it is due for renewal', async () => {
  const cloud = createCloud();
  const login = createShortLivedLogin(cloud.logIn, options);
  assert.deepEqual(new Set(await Promise.all(Array.from({ length: 50 }, () => login.password()))), new Set(['1']));
  mock.timers.tick(0.7 * HOUR_MS);
  assert.deepEqual([await login.username(), await login.password()], ['user', '1']);
  assert.equal(cloud.asked, 1);
});

test('a login is renewed while it still works, and callers do not wait for that', async () => {
  const cloud = createCloud();
  const login = createShortLivedLogin(cloud.logIn, options);
  await login.password();
  mock.timers.tick(0.8 * HOUR_MS);
  assert.equal(await login.password(), '1');
  await settle();
  assert.equal(await login.password(), '2');
  assert.equal(cloud.asked, 2);
});

test('while renewal fails, the login is used until it expires, and each failure is reported; then pulls get the reason', async () => {
  const cloud = createCloud();
  const login = createShortLivedLogin(cloud.logIn, options);
  await login.password();
  cloud.problem = new Error('the role is gone');
  mock.timers.tick(0.8 * HOUR_MS);
  for (let pull = 0; pull < 20; pull++) {
    assert.equal(await login.password(), '1');
    await settle();
  }
  assert.equal(cloud.asked, 2, 'after a failure it pauses');
  assert.deepEqual(messages, ['Cloud (registry.example) issues no password (the role is gone): check it']);
  mock.timers.tick(0.2 * HOUR_MS);
  await assert.rejects(login.password(), { code: 'UNAVAILABLE', message: messages[0], retryAfter: 10 });
  cloud.problem = undefined;
  mock.timers.tick(10_001);
  assert.equal(await login.password(), '4');
});

test('a cloud that does not answer fails after 15 s, and is asked again after a pause', async () => {
  let asked = 0;
  const login = createShortLivedLogin(() => (asked++, new Promise<Login>(() => {})), options);
  const waiting = assert.rejects(login.password(), { code: 'UNAVAILABLE' });
  await settle();
  mock.timers.tick(15_000);
  await waiting;
  await assert.rejects(login.password(), { code: 'UNAVAILABLE' });
  assert.equal(asked, 1);
});

test("a new login that has expired by this machine's clock is nevertheless used for a minute", async () => {
  const cloud = createCloud(-HOUR_MS);
  const login = createShortLivedLogin(cloud.logIn, options);
  await login.password();
  mock.timers.tick(30_000);
  assert.equal(await login.password(), '1');
  mock.timers.tick(30_001);
  assert.equal(await login.password(), '2');
});
