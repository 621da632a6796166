import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createRedactor } from './redact.ts';

test('promise C6: no text contains URLs, their keys, or the passwords of nodes', () => {
  const redactor = createRedactor();
  redactor.addUrl('https://user:p%40ss-word@air.example/api/v1/s/0123456789abcdef?token=9f8e7d6c5b4a&flag=meta');
  redactor.addNodes([{ name: 'HK 01', type: 'vmess', uuid: 'b831381d-6324-4d53', 'ws-opts': { headers: [{ token: 'deep-secret' }] } }]);
  const cases: [string, string][] = [
    [
      'fetch "https://user:p%40ss-word@air.example/api/v1/s/0123456789abcdef?token=9f8e7d6c5b4a&flag=meta": refused',
      'fetch "***": refused',
    ],
    ['GET /api/v1/s/0123456789abcdef?token=9f8e7d6c5b4a&flag=meta', 'GET ******'],
    ['token 9f8e7d6c5b4a, key 0123456789abcdef, password p@ss-word', 'token ***, key ***, password ***'],
    ['cannot unmarshal !!str `b831381...` into list', 'cannot unmarshal !!str `***` into list'],
    ['uuid b831381d-6324-4d53 deep-secret', 'uuid *** ***'],
    ['line trojan://pw@b.example:443#two is wrong', 'line *** is wrong'],
    ['[TCP] dial auto --> ghcr.io:443 error: connect refused', '[TCP] dial auto --> ghcr.io:443 error: connect refused'],
  ];
  for (const [text, expected] of cases) assert.equal(redactor.clean(text), expected);
});
