import assert from 'node:assert/strict';
import { test } from 'node:test';
import { schemeOf } from './forwarded.ts';

test('the scheme is the one that the client used, and unknown behind a proxy that does not report it', () => {
  const cases: [Record<string, string>, 'http' | 'https' | undefined][] = [
    [{}, 'http'],
    [{ 'x-forwarded-proto': 'https' }, 'https'],
    [{ 'x-forwarded-proto': 'http' }, 'http'],
    [{ 'x-forwarded-proto': 'HTTPS, http', 'x-forwarded-for': '10.0.0.1' }, 'https'],
    [{ 'x-forwarded-proto': 'ws' }, undefined],
    [{ 'x-forwarded-proto': '' }, undefined],
    [{ 'x-forwarded-for': '10.0.0.1' }, undefined],
    [{ 'x-forwarded-host': 'registry.example.com' }, undefined],
    [{ forwarded: 'for=10.0.0.1' }, undefined],
    [{ via: '1.1 proxy' }, undefined],
  ];
  for (const [headers, expected] of cases) {
    const socket = {} as Parameters<typeof schemeOf>[0]['socket'];
    assert.equal(schemeOf({ headers, socket }), expected, JSON.stringify(headers));
    assert.equal(schemeOf({ headers, socket: Object.assign({ encrypted: true }, socket) }), 'https');
  }
});
