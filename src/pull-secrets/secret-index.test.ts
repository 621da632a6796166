import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isPrivateComponent, parsePrivateName, privateName } from '../oci/private-name.ts';
import type { Repository } from '../oci/reference.ts';
import { idOf } from './capability.ts';
import { createSecretIndex } from './secret-index.ts';

const KEY = 'a key of more than 16 characters';
const base64 = (text: string): string => Buffer.from(text).toString('base64');

function secret(name: string, auths: unknown, more: { uid?: string; namespace?: string } = {}) {
  const config = typeof auths === 'string' ? auths : JSON.stringify({ auths });
  return {
    metadata: { namespace: more.namespace ?? 'team', name, uid: more.uid ?? `uid of ${name}` },
    type: 'kubernetes.io/dockerconfigjson',
    data: { '.dockerconfigjson': base64(config) },
  };
}
const login = (username: string, password = 'pw') => ({ auth: base64(`${username}:${password}`) });
const open = (key = KEY) => createSecretIndex(key, { keepsPasswords: true });
const idsOf = (index: ReturnType<typeof open>, name: string): string[] => (index.find(name)?.entries ?? []).map(({ id }) => id);

test('promise 18: an id is the same for the same entry and key, and for nothing else', () => {
  const [a, b] = [open(), open()];
  for (const index of [a, b]) index.set('team/s', secret('s', { 'ghcr.io': login('u'), 'quay.io': login('u') }), 'w');
  const [first = '', second = ''] = idsOf(a, 'team/s');
  assert.deepEqual(idsOf(b, 'team/s'), [first, second]);
  assert.notEqual(first, second);
  assert.match(first, /^[a-z2-7]{26}$/);
  const others = [
    idOf({ uid: 'another', registry: 'ghcr.io' }, KEY),
    idOf({ uid: 'uid of s', registry: 'ghcr.io' }, `${KEY}.`),
    idOf({ uid: 'uid of s', registry: 'ghcr.io/' }, KEY),
  ];
  assert.equal(new Set([first, second, ...others]).size, 5);
});

test('promise 18: after a password change, the same id stands for the new password at once', () => {
  const index = open();
  index.set('team/s', secret('s', { 'ghcr.io': login('u', 'old') }), 'w');
  const [id = ''] = idsOf(index, 'team/s');
  const before = index.credential(id);
  assert.equal(before?.password, 'old');
  index.set('team/s', secret('s', { 'ghcr.io': login('u', 'old') }), 'w');
  assert.equal(index.credential(id), before, 'nothing has changed');
  index.set('team/s', secret('s', { 'ghcr.io': login('u', 'new') }), 'w');
  assert.deepEqual(idsOf(index, 'team/s'), [id]);
  assert.equal(index.credential(id)?.password, 'new');
});

test('promise 18: the ids of a deleted Secret are invalid, even if a new Secret has the same name', () => {
  const index = open();
  index.set('team/s', secret('s', { 'ghcr.io': login('u') }), 'w');
  const [id = ''] = idsOf(index, 'team/s');
  index.remove('team/s', 'another watch');
  assert.ok(index.credential(id) !== undefined);
  index.set('team/s', secret('s', { 'ghcr.io': login('u') }, { uid: 'new' }), 'w');
  assert.equal(index.credential(id), undefined);
  const [next = ''] = idsOf(index, 'team/s');
  assert.ok(index.credential(next) !== undefined);
  index.removeAll('w');
  assert.equal(index.credential(next), undefined);
  assert.deepEqual(index.counts(), { usable: 0, unusable: 0 });
});

test('promise 18: a new key makes every id new, and none of the old ones works', () => {
  const index = open();
  for (let n = 0; n < 20; n++) index.set(`team/${n}`, secret(`${n}`, { 'ghcr.io': login(`u${n}`) }), 'w');
  const old = idsOf(index, 'team/7')[0] ?? '';
  index.useKey('another key of 16 characters');
  assert.equal(index.credential(old), undefined);
  assert.equal(index.credential(idsOf(index, 'team/7')[0] ?? '')?.username, 'u7');
});

test('promise 18: credentials are for the repositories that their entry covers, and for no other', () => {
  const index = open();
  index.set('team/s', secret('s', { 'ghcr.io/acme': login('a'), 'https://index.docker.io/v1/': login('b') }), 'w');
  const [ghcr, hub] = idsOf(index, 'team/s').map((id) => index.credential(id));
  assert.deepEqual(
    ['ghcr.io/acme/app', 'ghcr.io/other/app', 'quay.io/acme/app'].map((name) => ghcr?.covers(name)),
    [true, false, false],
  );
  assert.deepEqual(
    ['docker.io/acme/app', 'docker.io/library/nginx', 'ghcr.io/acme/app'].map((name) => hub?.covers(name)),
    [true, true, false],
  );
});

test('an unreadable Secret is reported once, without its content, and does not affect others', () => {
  const index = open();
  index.set('team/good', secret('good', { 'ghcr.io': login('u') }), 'w');
  const rows: [string, unknown][] = [
    ['not JSON', '{"auths": secret-word'],
    ['base64', { 'ghcr.io': { auth: 'secret-word!' } }],
    ['user:password', { 'ghcr.io': { auth: base64('secret-word') } }],
    ['not an object', '[]'],
    ['not a text', { 'ghcr.io': { username: 1 } }],
    ['1001 entries', Object.fromEntries(Array.from({ length: 1001 }, (_, n) => [`r${n}.example.com`, login('u')]))],
    ['longer than', { 'ghcr.io': { username: 'u', password: 'x'.repeat(70_000) } }],
  ];
  for (const [problem, auths] of rows) {
    const found = index.set(`team/${problem}`, secret(problem, auths), 'w');
    assert.match(found?.problem ?? '', new RegExp(problem));
    assert.doesNotMatch(found?.problem ?? '', /secret-word/);
    assert.equal(index.set(`team/${problem}`, secret(problem, auths), 'w'), undefined, 'logged once');
    assert.deepEqual(index.find(`team/${problem}`)?.entries, []);
  }
  assert.equal(index.credential(idsOf(index, 'team/good')[0] ?? '')?.username, 'u');
  assert.deepEqual(index.counts(), { usable: 1, unusable: rows.length });
});

test('the pull secrets of one namespace take a bounded part of the memory, and leave those of others alone', () => {
  const index = open();
  const large = (n: number) =>
    secret(`${n}`, Object.fromEntries(Array.from({ length: 20 }, (_, m) => [`r${m}.io`, login('x'.repeat(40_000))])));
  const problems = Array.from({ length: 10 }, (_, n) => index.set(`team/${n}`, large(n), 'w')?.problem);
  assert.equal(problems[0], undefined);
  assert.match(problems.at(-1) ?? '', /its namespace/);
  assert.equal(index.set('other/s', secret('s', { 'ghcr.io': login('u') }, { namespace: 'other' }), 'w'), undefined);
  index.remove('team/0', 'w');
  assert.equal(index.set('team/9', large(9), 'w'), undefined, 'there is room again');
  assert.equal(index.find('team/9')?.problem, undefined);
});

test('a process that needs no passwords has none', () => {
  const index = createSecretIndex(KEY, { keepsPasswords: false });
  index.set('team/s', secret('s', { 'ghcr.io': login('u', 'secret-word') }), 'w');
  const [id = ''] = idsOf(index, 'team/s');
  assert.equal(index.credential(id), undefined);
  assert.doesNotMatch(JSON.stringify(index.find('team/s')), /secret-word/);
});

test('names of private images are read as they are written, and nothing else is read as one', () => {
  const [a, b] = [idOf({ uid: '1', registry: 'a' }, KEY), idOf({ uid: '2', registry: 'b' }, KEY)];
  const repository = 'ghcr/acme/app' as Repository;
  for (const ids of [[a], [a, b], Array.from({ length: 7 }, () => a)]) {
    const name = privateName({ ids, repository });
    assert.deepEqual(parsePrivateName(name ?? ''), { ids, repository });
    assert.ok(isPrivateComponent(name?.split('/')[0] ?? ''));
  }
  assert.equal(privateName({ ids: Array.from({ length: 9 }, () => a), repository }), undefined);
  assert.equal(privateName({ ids: [], repository }), undefined);
  assert.equal(privateName({ ids: [a], repository: `ghcr/${'a'.repeat(230)}` as Repository }), undefined);
  const others = [
    '',
    'by-',
    `by-${a}`,
    `by-${a}/`,
    `by-${a.slice(1)}/ghcr/a`,
    `by-${a}a/ghcr/a`,
    `by-${a}-/ghcr/a`,
    `by-${a}_${b}/ghcr/a`,
    `${a}/ghcr/a`,
    `x/by-${a}/ghcr/a`,
  ];
  for (const other of others) assert.equal(parsePrivateName(other), undefined, other);
});
