import assert from 'node:assert/strict';
import { test } from 'node:test';
import { followRedirects, RedirectError, type Route } from './redirects.ts';

/** Follows redirects from https://start.example/ through `locations`, in turn. */
async function follow(
  locations: (string | undefined)[],
  { inside = [] as string[], status = 307, start = 'https://start.example/a' } = {},
) {
  const seen: [string, Route][] = [];
  const result = await followRedirects(new URL(start), {
    mayBeInternal: (url) => inside.includes(url.hostname),
    discard: () => undefined,
    send(url, route) {
      seen.push([url.href, route]);
      const location = locations[seen.length - 1];
      return Promise.resolve({ statusCode: location === undefined ? 200 : status, headers: { location } });
    },
  });
  return { ...result, seen };
}

test('redirects of each kind are followed, relative ones too, and the last URL is known', async () => {
  for (const status of [301, 302, 303, 307, 308]) {
    const { url, seen } = await follow(['b?c=d', 'https://other.example:8443/x', '//third.example/y'], { status });
    assert.equal(url.href, 'https://third.example/y');
    assert.deepEqual(seen.map(([href]) => href).slice(1, 3), ['https://start.example/b?c=d', 'https://other.example:8443/x']);
  }
  const { response } = await follow(['/x'], { status: 300 });
  assert.equal(response.statusCode, 300);
});

test('promise 12: five redirects are followed, but not a sixth, nor one to an invalid URL, another scheme or an internal address', async () => {
  const five = Array.from({ length: 5 }, (_, index) => `/${index}`);
  assert.equal((await follow(five)).response.statusCode, 200);
  const problems: [string, (string | undefined)[]][] = [
    ['too-many', [...five, '/again']],
    ['no-url', ['https://[']],
    ['scheme', ['http://start.example/']],
    ['scheme', ['file:///etc/passwd']],
    ['internal', ['https://10.0.0.1/']],
    ['internal', ['https://2130706433/']],
    ['internal', ['https://metadata.google.internal/']],
  ];
  for (const [problem, locations] of problems) {
    await assert.rejects(follow(locations), (error) => error instanceof RedirectError && error.problem === problem, `${locations.at(-1)}`);
  }
  await assert.rejects(follow(['ftp://start.example/'], { start: 'http://start.example/' }), { problem: 'scheme' });
});

test('URLs that may be internal use the own route, all others the outside route', async () => {
  const { seen } = await follow(['https://10.0.0.1/', 'https://cdn.example/'], { inside: ['start.example', '10.0.0.1'] });
  assert.deepEqual(
    seen.map(([, route]) => route),
    ['own', 'own', 'outside'],
  );
});
