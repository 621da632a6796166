import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseChallenges } from './challenge.ts';

/** As plain objects. */
function parse(...headers: string[]) {
  return parseChallenges(headers).map(({ scheme, parameters }) => [scheme, { ...parameters }] as const);
}

test('the challenges of real registries are read', () => {
  const docker = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull"';
  const expected = { realm: 'https://auth.docker.io/token', service: 'registry.docker.io', scope: 'repository:library/nginx:pull' };
  assert.deepEqual(parse(docker), [['bearer', expected]]);
  // Quoted scopes with commas (GitLab), extra spaces, parameters in any case, and an `error`
  // parameter.
  assert.deepEqual(parse('bearer  Realm = "https://gitlab.com/jwt/auth" , scope="repository:a/b:pull,push", error="insufficient_scope"'), [
    ['bearer', { realm: 'https://gitlab.com/jwt/auth', scope: 'repository:a/b:pull,push', error: 'insufficient_scope' }],
  ]);
  assert.deepEqual(parse('Bearer realm=https://x.test/token?a=b,service=s'), [
    ['bearer', { realm: 'https://x.test/token?a=b', service: 's' }],
  ]);
  // Nexus and Artifactory offer several schemes, in one header or in two.
  const both = [
    ['basic', { realm: 'Sonatype' }],
    ['bearer', { realm: 'https://x.test/token' }],
  ];
  assert.deepEqual(parse('BASIC realm="Sonatype", Bearer realm="https://x.test/token"'), both);
  assert.deepEqual(parse('BASIC realm="Sonatype"', 'Bearer realm="https://x.test/token"'), both);
  assert.deepEqual(parse('Negotiate dG9rZW4=, Basic realm="x"'), [
    ['negotiate', {}],
    ['basic', { realm: 'x' }],
  ]);
  assert.deepEqual(parse('Negotiate, NTLM', ''), [
    ['negotiate', {}],
    ['ntlm', {}],
  ]);
});

const token = fc.stringMatching(/^[A-Za-z][A-Za-z0-9_-]{0,10}$/);
const challenge = fc.record({
  scheme: token,
  parameters: fc.uniqueArray(fc.tuple(token, fc.string({ maxLength: 30 })), { selector: ([name]) => name.toLowerCase(), maxLength: 5 }),
});

test('challenges by the grammar of RFC 9110 are parsed correctly', () => {
  fc.assert(
    fc.property(fc.array(challenge, { maxLength: 4 }), fc.constantFrom(',', ', ', ' , '), (challenges, comma) => {
      const quote = (value: string) => `"${value.replace(/[\\"]/g, '\\$&')}"`;
      const text = challenges
        .map(({ scheme, parameters }) => `${scheme} ${parameters.map(([name, value]) => `${name}=${quote(value)}`).join(comma)}`)
        .join(comma);
      const expected = challenges.map(
        ({ scheme, parameters }) =>
          [scheme.toLowerCase(), Object.fromEntries(parameters.map(([name, value]) => [name.toLowerCase(), value]))] as const,
      );
      assert.deepEqual(parse(text), expected);
    }),
  );
});

test('no header makes the parser fail, hang or give more than the header has', () => {
  const noise = fc.oneof(fc.string(), fc.stringMatching(/^[A-Za-z"\\=,; ]{0,200}$/));
  fc.assert(
    fc.property(noise, (text) => {
      for (const [scheme, parameters] of parse(text)) assert.ok(scheme.length > 0 && Object.keys(parameters).length <= text.length);
    }),
  );
  const started = performance.now();
  for (const part of ['a=', '"', '\\', ' ', ',', 'Basic ', 'a="', 'Bearer a ']) parse(part.repeat(100_000));
  assert.ok(performance.now() - started < 5000);
});
