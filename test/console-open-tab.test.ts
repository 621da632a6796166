import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { buildConsole } from '../console/build.ts';
import { heapOf, settled, startBrowser } from './support/browser.ts';
import { startRegistry } from './support/program.ts';
import { temporaryDirectory } from './support/temporary.ts';

const KB = 1000;

before(() => buildConsole());

test('a page that stays open keeps its memory: twenty minutes of polls, and events meanwhile', async (t) => {
  await using temporary = await temporaryDirectory();
  await using registry = await startRegistry({ storage: { filesystem: { directory: temporary.path } } });
  await using browser = await startBrowser();
  await using own = await browser.open('about:blank');
  const { page } = own;
  await page.clock.install();
  await page.goto(`${registry.admin}/#/overview`);
  await settled(page);
  const pass = async (minutes: number) => {
    for (let step = 0; step < minutes * 6; step++) {
      const answered = page.waitForResponse(/\/api\/history/);
      await page.clock.runFor(10_000);
      await answered;
    }
    return heapOf(page);
  };
  const early = await pass(5);
  const late = await pass(15);
  t.diagnostic(`heap of the page: ${Math.round(early / KB)} kB after 5 minutes, ${Math.round(late / KB)} kB after 20`);
  assert.ok(late < early * 1.2 + 500 * KB, `${early} → ${late}`);
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
