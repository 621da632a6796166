import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { connectKubernetes } from './client.ts';
import { watchObjects, type Change } from './watch.ts';

type Answer = (response: ServerResponse, query: URLSearchParams) => void;

/** An API server that sends the given responses in order, and repeats the last one.
 *  test/pull-secrets.test.ts uses a real one. */
async function startServer(...answers: Answer[]) {
  const asked: string[] = [];
  const server = createServer((request: IncomingMessage, response) => {
    const { searchParams } = new URL(request.url ?? '', 'http://localhost');
    const watch = searchParams.get('watch') === '1' ? `watch from ${searchParams.get('resourceVersion')}` : 'list';
    asked.push(watch + (searchParams.has('continue') ? `, continued at ${searchParams.get('continue')}` : ''));
    const answer = answers.length > 1 ? answers.shift() : answers[0];
    answer?.(response, searchParams);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const directory = await mkdtemp(join(tmpdir(), 'watch-'));
  const kubeconfig = join(directory, 'kubeconfig');
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const content = {
    clusters: [{ name: 'c', cluster: { server: url } }],
    users: [{ name: 'u', user: {} }],
    contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
    'current-context': 'x',
  };
  await writeFile(kubeconfig, JSON.stringify(content));
  const stop = new AbortController();
  const kubernetes = await connectKubernetes({ KUBECONFIG: kubeconfig });
  const changes = watchObjects(kubernetes, { path: '/api/v1/secrets', fieldSelector: 'type=a' }, stop.signal);
  return {
    asked,
    /** The next changes, in short. */
    async next(count: number): Promise<string[]> {
      const texts: string[] = [];
      while (texts.length < count) {
        const { value } = (await changes.next()) as { value: Change };
        texts.push(
          'key' in value
            ? `${value.type} ${value.key}`
            : value.type === 'failed'
              ? `failed${value.isDenied ? ', denied' : ''}`
              : value.type,
        );
      }
      return texts;
    },
    async [Symbol.asyncDispose]() {
      stop.abort();
      await kubernetes.close();
      server.closeAllConnections();
      server.close();
      await rm(directory, { recursive: true });
    },
  };
}

const object = (name: string, resourceVersion = '1') => ({ metadata: { namespace: 'n', name, resourceVersion } });
const list =
  (names: readonly string[], resourceVersion: string, more: object = {}): Answer =>
  (response) =>
    void response.end(JSON.stringify({ metadata: { resourceVersion, ...more }, items: names.map((name) => object(name)) }));
const line = (type: string, object: unknown): string => `${JSON.stringify({ type, object })}\n`;
/** A watch that sends this and then waits, or ends. */
const watch =
  (text: string, ends = false): Answer =>
  (response) => {
    response.write(text);
    if (ends) setTimeout(() => response.end(), 1_100);
  };
const status =
  (code: number): Answer =>
  (response) =>
    void response.writeHead(code).end(JSON.stringify({ kind: 'Status', code, message: 'no' }));

test('all pages of a list are reported, and then the changes', async () => {
  const events = line('ADDED', object('c', '6')) + line('MODIFIED', object('a', '7')) + line('DELETED', object('b', '8'));
  await using server = await startServer(list(['a'], '5', { continue: 'more' }), list(['b'], '5'), watch(events));
  assert.deepEqual(await server.next(6), ['set n/a', 'set n/b', 'complete', 'set n/c', 'set n/a', 'removed n/b']);
  assert.deepEqual(server.asked, ['list', 'list, continued at more', 'watch from 5']);
});

test('a watch that ends or breaks continues from the last event or bookmark, without a new list', async () => {
  const first = line('ADDED', object('b', '6')) + line('BOOKMARK', { metadata: { resourceVersion: '9' } });
  const breaks: Answer = (response) => {
    response.write(line('ADDED', object('c', '10')) + '{"type":"ADD');
    setTimeout(() => response.destroy(), 1_100);
  };
  await using server = await startServer(list(['a'], '5'), watch(first, true), breaks, watch(line('ADDED', object('d', '11'))));
  assert.deepEqual(await server.next(5), ['set n/a', 'complete', 'set n/b', 'set n/c', 'set n/d']);
  assert.deepEqual(server.asked, ['list', 'watch from 5', 'watch from 9', 'watch from 10']);
});

test('an expired version leads to a new list, after which removed objects are no longer known', async () => {
  const gone = line('ERROR', { kind: 'Status', code: 410 });
  await using server = await startServer(
    list(['a', 'b'], '5'),
    watch(gone),
    list(['b', 'c'], '20'),
    status(410),
    list(['c'], '30'),
    watch(''),
  );
  const changes = await server.next(9);
  assert.deepEqual(changes, ['set n/a', 'set n/b', 'complete', 'set n/b', 'set n/c', 'removed n/a', 'complete', 'set n/c', 'removed n/b']);
});

test('after a failure of the API server the watch continues; after a refusal everything is listed again', async () => {
  await using server = await startServer(
    status(500),
    list(['a'], '5'),
    status(503),
    watch(line('ADDED', object('b', '6')), true),
    status(403),
    list(['a', 'b'], '9'),
    watch(''),
  );
  assert.deepEqual(await server.next(10), [
    'failed',
    'set n/a',
    'complete',
    'failed',
    'recovered',
    'set n/b',
    'failed, denied',
    'set n/a',
    'set n/b',
    'complete',
  ]);
  assert.deepEqual(server.asked.slice(0, 6), ['list', 'list', 'watch from 5', 'watch from 5', 'watch from 6', 'list']);
});

test('after a failure, the watch reports that the API server answers again, even without a change', async () => {
  await using server = await startServer(list(['a'], '5'), status(503), watch(' '));
  assert.deepEqual(await server.next(4), ['set n/a', 'complete', 'failed', 'recovered']);
});

test('an event without an end is cut off', async () => {
  const endless: Answer = (response) => void response.write('x'.repeat(9 * 2 ** 20));
  await using server = await startServer(list(['a'], '5'), endless, list(['b'], '6'), watch(''));
  assert.deepEqual(await server.next(5), ['set n/a', 'complete', 'set n/b', 'removed n/a', 'complete']);
});
