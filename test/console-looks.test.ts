import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { VIEW_NAMES } from '../console/views/names.ts';
import { findingsOf, settled, styleOf, widerThanWindow } from './support/browser.ts';
import { show, startConsolePages, type ConsolePages } from './support/console-page.ts';
import { HOSTILE } from './support/console.ts';
import { temporaryDirectory } from './support/temporary.ts';

const KB = 1000;
const SCHEMES = ['light', 'dark'] as const;

let pages: ConsolePages;
before(async () => {
  pages = await startConsolePages();
});
after(() => pages[Symbol.asyncDispose]());

describe('axe-core finds nothing', () => {
  for (const colorScheme of SCHEMES) {
    test(`on any view, ${colorScheme}`, async () => {
      await using own = await pages.open('overview', { colorScheme });
      const { page } = own;
      const views = [...VIEW_NAMES, await pages.imageView(HOSTILE.repository)];
      for (const view of views) {
        await show(page, view);
        assert.deepEqual(await findingsOf(page), [], view);
      }
      await page.getByRole('button', { name: 'Sign in' }).click();
      assert.deepEqual(await findingsOf(page), [], 'the dialog');
      assert.deepEqual(own.errors, []);
    });
  }
});

for (const width of [360, 3840]) {
  test(`every view fits ${width} px`, async () => {
    await using own = await pages.open('overview', { viewport: { width, height: 800 } });
    for (const view of [...VIEW_NAMES, await pages.imageView(HOSTILE.repository)]) {
      await show(own.page, view);
      assert.deepEqual(await widerThanWindow(own.page), [], view);
    }
  });
}

test('in Chinese by the language of the browser, with a switch that is remembered', async () => {
  await using own = await pages.open('overview', { locale: 'zh-CN' });
  const { page } = own;
  assert.equal(await page.locator('html').getAttribute('lang'), 'zh-CN');
  for (const view of VIEW_NAMES) {
    await show(page, view);
    assert.match((await page.getByRole('heading', { level: 1 }).textContent()) ?? '', /[\u4e00-\u9fff]|Webhook|Agent/, view);
  }
  await page.getByLabel('语言').selectOption('English');
  await page.getByRole('heading', { level: 1, name: 'Upkeep' }).waitFor();
  await page.reload();
  await page.getByRole('heading', { level: 1, name: 'Upkeep' }).waitFor();
  assert.equal(await page.locator('html').getAttribute('lang'), 'en');
  await page.getByLabel('Colours').selectOption('Dark');
  assert.equal(await styleOf(page, 'html', 'colorScheme'), 'dark');
});

/** The screenshots of docs/console.md. */
const SCREENSHOTS = [
  { name: 'overview-light', view: 'overview', width: 1280, height: 900 },
  { name: 'downloads-dark', view: 'downloads', width: 1280, height: 640, colorScheme: 'dark' },
  { name: 'images-narrow', view: 'images', width: 360, height: 780 },
  { name: 'proxy-chinese', view: 'proxy', width: 1280, height: 760, locale: 'zh-CN' },
] as const;
const MAX_SCREENSHOT_BYTES = 150 * KB;

// npm run screenshots keeps them in docs/images; they look best with Debian's fonts-inter and
// fonts-noto-cjk.
test('screenshots in light and dark, narrow and in Chinese are small enough for the docs', async () => {
  await using temporary = await temporaryDirectory();
  const kept = process.env['KUBE_REGISTRY_SCREENSHOTS'] === 'write';
  const directory = kept ? join(import.meta.dirname, '../docs/images') : temporary.path;
  await mkdir(directory, { recursive: true });
  for (const { name, view, width, height, ...options } of SCREENSHOTS) {
    await using own = await pages.open(view, { viewport: { width, height }, ...options });
    await settled(own.page);
    await own.page.mouse.move(0, 0);
    const { length } = await own.page.screenshot({ path: join(directory, `console-${name}.png`), animations: 'disabled' });
    assert.ok(length > 5 * KB && length < MAX_SCREENSHOT_BYTES, `${name}: ${length} bytes`);
  }
});
