import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { buildConsole } from '../console/build.ts';
import { heapOf, settled, startBrowser } from './support/browser.ts';
import { startRegistry } from './support/program.ts';
import { temporaryDirectory } from './support/temporary.ts';

const KB = 1000;
const MB = 1000 * KB;

before(() => buildConsole());

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

test('ten thousand events in a second do not stop the page: it shows the last one, and answers', async () => {
  await using temporary = await temporaryDirectory();
  await using registry = await startRegistry({ storage: { filesystem: { directory: temporary.path } } });
  await using browser = await startBrowser();
  await using own = await browser.open('about:blank');
  const { page } = own;
  const download = (n: number) => ({
    digest: `sha256:${'0'.repeat(64)}`,
    repository: `hub/team/app-${n}`,
    upstream: 'hub',
    source: 'upstream',
    receivedBytes: n,
    size: 10_000,
    bytesPerSecond: 2 ** 21,
    startedAt: new Date().toISOString(),
    readers: 1,
    replica: '127.0.0.1',
  });
  const snapshot = (n: number) => ({
    at: new Date().toISOString(),
    downloads: Array.from({ length: 3 }, (_, index) => ({ ...download(n), digest: `sha256:${`${index}`.padStart(64, '0')}` })),
    total: 3,
    bytesPerSecond: 1,
    sentBytesPerSecond: 1,
    requestsPerSecond: 1,
    unreachable: [],
  });
  const events = Array.from({ length: 10_000 }, (_, n) => `event: downloads\ndata: ${JSON.stringify(snapshot(n))}\n\n`).join('');
  await page.route('**/api/events', (route) => route.fulfill({ contentType: 'text/event-stream', body: events }));
  await page.goto(`${registry.admin}/#/downloads`);
  await page
    .getByRole('rowheader', { name: /app-9999/ })
    .first()
    .waitFor();
  await page.getByRole('link', { name: 'Images', exact: true }).click();
  await page.getByRole('heading', { level: 1, name: 'Images' }).waitFor();
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
