import assert from 'node:assert/strict';
import { test } from 'node:test';
import { captureLog } from '../../test/support/log.ts';
import { until } from '../../test/support/until.ts';
import { parseDigest } from '../oci/digest.ts';
import { parseReference, parseRepository } from '../oci/reference.ts';
import { createAccessLog, type PullAnswer, type PullRequest } from './access-log.ts';

const index = parseDigest(`sha256:${'a'.repeat(64)}`);
const platform = parseDigest(`sha256:${'b'.repeat(64)}`);

function request(reference?: string, client = '10.0.0.1'): PullRequest {
  return {
    client,
    node: 'node-1',
    upstream: 'hub',
    repository: parseRepository('hub/apps/web'),
    reference: reference === undefined ? undefined : parseReference(reference),
  };
}
const answer = (own: Partial<PullAnswer> = {}): PullAnswer => ({ digest: undefined, bytes: 0, status: 200, outcome: 'hit', ...own });

test('one line a pull: of the tag, its manifest, all bytes, and the worst outcome', async () => {
  const { log, entries } = await captureLog();
  const access = createAccessLog({ log, idleMs: 50 });
  access.begin(request('1.27'))(answer({ digest: index }));
  access.begin(request('1.27'))(answer({ digest: index, bytes: 10 }));
  access.begin(request(platform))(answer({ digest: platform, bytes: 20 }));
  const layer = access.begin(request());
  access.begin(request())(answer({ bytes: 70, outcome: 'miss' }));
  layer(answer({ bytes: 100 }));
  await until(() => entries().length === 1, 'the line has been written');
  const { event, client, node, upstream, repository, tag, digest, bytes, outcome, status, requests, ms } = entries()[0] ?? {};
  assert.deepEqual(
    { event, client, node, upstream, repository, tag, digest, bytes, outcome, status, requests },
    {
      event: 'image-pulled',
      client: '10.0.0.1',
      node: 'node-1',
      upstream: 'hub',
      repository: 'apps/web',
      tag: '1.27',
      digest: index,
      bytes: 200,
      outcome: 'miss',
      status: 200,
      requests: 5,
    },
  );
  assert.equal(typeof ms, 'number');
});

test('a pull that still downloads has no line yet; another tag and another client have lines of their own', async () => {
  const { log, entries } = await captureLog();
  const access = createAccessLog({ log, idleMs: 20 });
  const running = access.begin(request('1'));
  access.begin(request('1', '10.0.0.2'))(answer({ digest: index }));
  await until(() => entries().length === 1, 'the other client has its log line');
  assert.equal(entries()[0]?.['client'], '10.0.0.2');
  access.begin(request('2'))(answer({ status: 403, outcome: 'denied' }));
  await until(() => entries().length === 3, 'another tag ends the pull of the first');
  assert.deepEqual(
    entries()
      .slice(1)
      .map(({ tag, outcome, status }) => [tag, outcome, status]),
    [
      ['1', 'hit', 200],
      ['2', 'denied', 403],
    ],
  );
  running(answer());
  access.close();
  assert.equal(entries().length, 3);
});

test('pulls that have not ended are bounded, and are written when the process stops', async () => {
  const { log, entries } = await captureLog();
  const access = createAccessLog({ log, idleMs: 60_000, maxOpen: 10 });
  for (let client = 0; client < 100; client++) access.begin(request('1', `10.0.0.${client}`))(answer());
  assert.equal(entries().length, 90);
  access.close();
  assert.equal(entries().length, 100);
});
