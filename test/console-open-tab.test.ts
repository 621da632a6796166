import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, request, type ServerResponse } from 'node:http';
import { before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { buildConsole } from '../console/build.ts';
import { heapOf, settled, startBrowser } from './support/browser.ts';
import { listenOnLoopback } from './support/http.ts';
import { startRegistry } from './support/program.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { until } from './support/until.ts';

const KB = 1000;
const MB = 1000 * KB;

const EVENTS_A_SECOND = 10_000;
/** A browser on a busy machine reads events faster than its page can handle them. */
const MAX_AHEAD = 3 * EVENTS_A_SECOND;
/** How many rows each event has. */
const ROWS = 3;

before(() => buildConsole());

interface Flood extends AsyncDisposable {
  url: string;
  /** The number of events sent. */
  sent(): number;
  /** Events per second since the first one. */
  rate(): number;
  /** Tells the flood which event the page shows: it sends MAX_AHEAD more. */
  shown(event: number): void;
  stop(): Promise<void>;
}

/** The event number `n`, which stands in the column of readers. */
function snapshotOf(n: number): string {
  const at = new Date().toISOString();
  const image = { name: 'hub.example/team/app', tag: null };
  const download = { repository: 'hub/team/app', image, upstream: 'hub', source: 'upstream', receivedBytes: n, size: 1e9, readers: n };
  const rows = Array.from({ length: ROWS }, (_, index) => ({
    ...download,
    digest: `sha256:${`${index}`.padStart(64, '0')}`,
    bytesPerSecond: 2 ** 21,
    startedAt: at,
    replica: '127.0.0.1',
  }));
  const rates = { bytesPerSecond: 1, sentBytesPerSecond: 1, requestsPerSecond: 1 };
  return `event: downloads\ndata: ${JSON.stringify({ at, downloads: rows, total: ROWS, ...rates, unreachable: [] })}\n\n`;
}

/** A server in front of a console that answers for it, but sends EVENTS_A_SECOND to its page, or as
 *  many as the page shows. */
async function startFlood(admin: string): Promise<Flood> {
  let count = 0;
  let latest = 0;
  let started = 0;
  let stopped = false;
  let running: Promise<void> | undefined;
  async function send(response: ServerResponse): Promise<void> {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    started ||= performance.now();
    const closed = once(response, 'close');
    while (!stopped && !response.destroyed) {
      const due = ((performance.now() - started) / 1000) * EVENTS_A_SECOND;
      let text = '';
      while (count < Math.min(due, latest + MAX_AHEAD) && text.length < 1_000_000) text += snapshotOf(count++);
      await Promise.race([closed, new Promise<void>((resolve) => response.write(text, () => resolve()))]);
      await delay(5);
    }
  }
  const server = createServer((incoming, outgoing) => {
    if (incoming.url === '/api/events') running = send(outgoing);
    else {
      const { url: path = '', method, headers } = incoming;
      const passed = request(admin + path, { method, headers }, (answer) => {
        outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(outgoing);
      });
      incoming.pipe(passed.on('error', () => outgoing.destroy()));
    }
  });
  const listening = await listenOnLoopback(server);
  const stop = async (): Promise<void> => {
    stopped = true;
    await running;
  };
  return {
    url: listening.url,
    sent: () => count,
    rate: () => (1000 * count) / (performance.now() - started),
    shown: (event) => void (latest = event),
    stop,
    async [Symbol.asyncDispose]() {
      await stop();
      await listening[Symbol.asyncDispose]();
    },
  };
}

test('page and registry keep their memory while a tab stays open for an hour (the clock of the page is moved)', async (t) => {
  await using temporary = await temporaryDirectory();
  await using registry = await startRegistry({ storage: { filesystem: { directory: temporary.path } } });
  await using browser = await startBrowser();
  await using own = await browser.open('about:blank');
  const { page } = own;
  await page.clock.install();
  await page.goto(`${registry.admin}/#/overview`);
  await settled(page);
  const pass = async (minutes: number) => {
    for (let step = 0; step < minutes * 2; step++) {
      const answered = page.waitForResponse(/\/api\/history/);
      await page.clock.runFor(30_000);
      await answered;
    }
    return { page: await heapOf(page), registry: (await registry.memory()).resident };
  };
  const early = await pass(10);
  const late = await pass(50);
  t.diagnostic(`heap of the page: ${Math.round(early.page / KB)} kB after 10 minutes, ${Math.round(late.page / KB)} kB after an hour`);
  t.diagnostic(`memory of the registry: ${Math.round(early.registry / MB)} MB and ${Math.round(late.registry / MB)} MB`);
  assert.ok(late.page < early.page * 1.2 + 500 * KB, `${early.page} → ${late.page}`);
  assert.ok(late.registry < early.registry * 1.2 + 20 * MB, `${early.registry} → ${late.registry}`);
});

test('ten thousand events a second do not stop the page: it shows the newest ones, answers, and keeps its memory', async (t) => {
  await using temporary = await temporaryDirectory();
  await using registry = await startRegistry({ storage: { filesystem: { directory: temporary.path } } });
  await using flood = await startFlood(registry.admin);
  await using browser = await startBrowser();
  await using own = await browser.open(`${flood.url}/#/downloads`);
  const { page } = own;
  const readers = page.locator('main tbody tr').first().locator('td').nth(3);
  const shown = async () => {
    const event = Number(await readers.innerText());
    flood.shown(event);
    return event;
  };
  let behind = 0;
  let early = 0;
  while (flood.sent() < 6 * EVENTS_A_SECOND) {
    const before = flood.sent();
    await until(async () => (await shown()) >= before, 'what was sent is shown');
    behind = Math.max(behind, flood.sent() - before);
    for (const view of ['Images', 'Downloads']) {
      await page.getByRole('link', { name: view }).first().click();
      await page.getByRole('heading', { level: 1, name: view }).waitFor();
    }
    early ||= await heapOf(page);
  }
  t.diagnostic(`${flood.sent()} events at ${Math.round(flood.rate())} a second; at most ${behind} more were sent before one was shown`);
  await flood.stop();
  await until(async () => (await shown()) === flood.sent() - 1, 'the last one is shown');
  const late = await heapOf(page);
  t.diagnostic(`heap of the page: ${Math.round(early / KB)} kB at first, ${Math.round(late / KB)} kB at the end`);
  assert.ok(late < early * 1.2 + MB);
  assert.deepEqual(own.errors, []);
});

test('the page shows at once that the registry has died, and that it is back', async () => {
  await using temporary = await temporaryDirectory();
  const configuration = { storage: { filesystem: { directory: temporary.path } } };
  const first = await startRegistry(configuration);
  await using browser = await startBrowser();
  await using own = await browser.open(`${first.admin}/#/overview`);
  const { page } = own;
  await settled(page);
  assert.equal(await page.getByRole('alert').getByText('The registry does not answer').count(), 0);
  await first.stop('SIGKILL');
  await page.getByRole('alert').getByText('The registry does not answer').waitFor();
  await using second = await startRegistry({ ...configuration, listen: first.host, admin: new URL(first.admin).host });
  await page.getByText('The registry does not answer').waitFor({ state: 'detached' });
  assert.equal(second.admin, first.admin);
  await first[Symbol.asyncDispose]();
});
