import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Page } from 'playwright-core';
import { buildConsole } from '../console/build.ts';
import { VIEW_NAMES } from '../console/views/names.ts';
import {
  findingsOf,
  settled,
  startBrowser,
  styleOf,
  timingsOf,
  widerThanWindow,
  type TestBrowser,
  type TestPage,
} from './support/browser.ts';
import { HOSTILE, SLOW_REPOSITORY, startConsoleScene, USER, type ConsoleScene } from './support/console.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { until } from './support/until.ts';

const KB = 1000;
const SCHEMES = ['light', 'dark'] as const;

const resources = new AsyncDisposableStack();
let scene: ConsoleScene;
let browser: TestBrowser;
let admin: string;

before(async () => {
  await buildConsole();
  [scene, browser] = await Promise.all([
    startConsoleScene().then((own) => resources.use(own)),
    startBrowser({ FONTCONFIG_FILE: join(import.meta.dirname, 'support/fonts.conf') }).then((own) => resources.use(own)),
  ]);
  admin = scene.registry.admin;
  const { images, pull } = scene;
  await pull('dockerhub/library/nginx', '1.27', images.nginx);
  await pull('dockerhub/library/nginx', '1.27', images.nginx);
  await pull('dockerhub/library/redis', '8.4', images.redis);
  await pull('ghcr/cloudnative-pg/postgresql', '18.1', images.postgresql);
  await pull(`dockerhub/${HOSTILE.repository}`, HOSTILE.tag, images.hostile);
  scene.beginSlowDownload();
  await until(async () => (await ask<{ total: number }>('/api/images')).total >= 4, 'the images are listed');
});
after(() => resources.disposeAsync());

async function ask<Answer>(path: string): Promise<Answer> {
  return (await (await fetch(admin + path)).json()) as Answer;
}

function open(view: string, options?: Parameters<TestBrowser['open']>[1]): Promise<TestPage> {
  return browser.open(`${admin}/#/${view}`, options);
}

async function show(page: Page, view: string): Promise<void> {
  await page.evaluate(`location.hash = ${JSON.stringify(`#/${view}`)}`);
  await page.locator(`.nav a[aria-current=page][href="#/${view.split(/[/?]/, 1)[0] ?? ''}"]`).waitFor({ state: 'attached' });
  await settled(page);
}

async function signIn(page: Page, user = USER.name): Promise<void> {
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByLabel('User').fill(user);
  await page.getByLabel('Password').fill(USER.password);
  await page.getByRole('dialog').getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('button', { name: `Sign out ${user}` }).waitFor();
}

/** The address of an image's view. */
async function imageView(search: string): Promise<string> {
  const { images } = await ask<{ images: { repository: string; digest: string }[] }>(`/api/images?search=${encodeURIComponent(search)}`);
  const [found] = images;
  assert.ok(found !== undefined, search);
  return `images/${found.repository}?digest=${encodeURIComponent(found.digest)}`;
}

test('the first view is under 150 kB, comes from the registry alone, and keeps to its Content-Security-Policy', async (t) => {
  await using own = await open('overview');
  await own.page.locator('.figures').waitFor();
  const figures = await timingsOf(own.page);
  const files = figures.entries.filter(({ name }) => !name.includes('/api/'));
  const bytes = figures.entries.reduce((sum, own) => sum + own.bytes, 0);
  t.diagnostic(
    `first view: ${files.length} files and ${figures.entries.length - files.length} questions to the API, ${Math.round(bytes / KB)} kB in all`,
  );
  t.diagnostic(`first contentful paint after ${Math.round(figures.paintMs)} ms, figures shown after ${Math.round(figures.nowMs)} ms`);
  assert.ok(bytes > 10 * KB && bytes < 150 * KB, `${bytes} bytes`);
  assert.deepEqual(
    figures.entries.filter(({ name }) => !name.startsWith(`${admin}/`)),
    [],
  );
  assert.deepEqual(own.errors, []);
});

test('the first view shows the remaining pulls, the largest image and the node in use', async () => {
  await using own = await open('overview');
  const { page } = own;
  await settled(page);
  await page
    .getByRole('region', { name: 'Remaining pulls' })
    .getByRole('row', { name: /dockerhub 6\d/ })
    .waitFor();
  const largest = page.getByRole('region', { name: 'Largest images' }).getByRole('row').nth(1);
  await largest.getByRole('link', { name: 'ghcr.io/cloudnative-pg/postgresql:18.1' }).waitFor();
  await page
    .locator('.figure', { hasText: 'Proxy node in use' })
    .getByText(/香港 01 \| IEPL|日本 02 <b>BGP<\/b>/)
    .waitFor();
});

test('the page shows why an image is slow: its download, its speed, and the proxy node', async () => {
  await using own = await open('overview');
  const { page } = own;
  await page.getByText(`The download of ${SLOW_REPOSITORY} from its upstream is slow`).waitFor();
  await page.getByRole('region', { name: 'State' }).getByRole('link', { name: 'Downloads' }).click();
  const row = page.getByRole('row', { name: new RegExp(SLOW_REPOSITORY) });
  await row.getByText(/\/s/).first().waitFor();
  await row.getByText(/Proxy node in use: (香港|日本)/).waitFor();
  const progress = row.getByRole('progressbar');
  const before = await progress.getAttribute('aria-valuetext');
  await until(async () => (await progress.getAttribute('aria-valuetext')) !== before, 'the progress goes on by itself');
  await show(page, 'overview');
  await page.getByLabel('Image', { exact: true }).fill('nginx:1.27');
  await page.keyboard.press('Enter');
  await page.getByText('The whole image is stored here').waitFor();
  assert.deepEqual(own.errors, []);
});

describe('axe-core finds nothing', () => {
  for (const colorScheme of SCHEMES) {
    test(`on any view, ${colorScheme}`, async () => {
      await using own = await open('overview', { colorScheme });
      const { page } = own;
      const views = [...VIEW_NAMES, await imageView(HOSTILE.repository)];
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
    await using own = await open('overview', { viewport: { width, height: 800 } });
    for (const view of [...VIEW_NAMES, await imageView(HOSTILE.repository)]) {
      await show(own.page, view);
      assert.deepEqual(await widerThanWindow(own.page), [], view);
    }
  });
}

test('everything can be done by keyboard, and the focus can be seen', async () => {
  await using own = await open('overview');
  const { page } = own;
  await settled(page);
  const press = (key: string) => page.keyboard.press(key);
  const focused = page.locator(':focus');
  await press('Tab');
  assert.match((await focused.textContent()) ?? '', /Skip/);
  await press('Enter');
  assert.equal(await focused.getAttribute('id'), 'content');
  await page.getByRole('link', { name: 'Images', exact: true }).focus();
  await press('Enter');
  await page.getByRole('heading', { level: 1, name: 'Images' }).waitFor();
  assert.equal(await focused.getAttribute('id'), 'content', 'a new view begins at its beginning');
  const name = page.getByRole('columnheader', { name: 'Image' });
  await name.getByRole('button').focus();
  assert.notEqual(await styleOf(page, ':focus', 'outlineStyle'), 'none');
  await press('Enter');
  assert.equal(await name.getAttribute('aria-sort'), 'ascending');
  const button = page.getByRole('button', { name: 'Sign in' });
  await button.focus();
  await press('Enter');
  await page.getByRole('dialog').waitFor();
  for (let tab = 0; tab < 8; tab++) await press('Tab');
  await press('Escape');
  await page.getByRole('dialog').waitFor({ state: 'detached' });
  assert.match((await focused.textContent()) ?? '', /Sign in/, 'the focus returns');
});

test('names and labels with HTML are shown as text, and invisible characters are escaped', async () => {
  await using own = await open('overview');
  const { page } = own;
  await show(page, await imageView(HOSTILE.repository));
  await page.getByText('<script>document.title=1</script>').waitFor();
  await page.getByText('<img src=x onerror="document.title=1">').waitFor();
  await page.getByText('a\\u202eb\\u0000c\\u200d').waitFor();
  assert.equal(await page.locator('#content img, #content script, #content svg[onload]').count(), 0);
  assert.doesNotMatch(await page.title(), /^1$/);
  await show(page, 'proxy');
  await page.getByRole('rowheader', { name: '日本 02 <b>BGP</b>' }).waitFor();
  assert.deepEqual(own.errors, []);
});

test('two sessions act: one pins, one deletes a tag that the other deletes as well, and a dry run comes before pruning', async () => {
  await using one = await open('overview');
  await using other = await open('overview');
  await signIn(one.page);
  await signIn(other.page, 'bob');
  const view = await imageView('redis');
  for (const { page } of [one, other]) await show(page, view);
  await one.page.getByRole('button', { name: 'Pin 8.4' }).click();
  await one.page.getByText('8.4 is pinned').waitFor();
  await one.page.getByRole('button', { name: 'Unpin 8.4' }).click();
  await one.page.getByText('8.4 is no longer pinned').waitFor();
  for (const { page } of [one, other]) await page.getByRole('button', { name: 'Delete 8.4' }).click();
  for (const { page } of [one, other]) await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
  const outcomes = await Promise.all(
    [one, other].map(({ page }) =>
      page
        .locator('.announcement')
        .filter({ hasText: /Tag 8\.4 (was deleted|had already been deleted)/ })
        .textContent(),
    ),
  );
  assert.equal(outcomes.filter((text) => text?.includes('was deleted')).length, 1, outcomes.join('\n'));

  await show(one.page, 'upkeep');
  const prune = one.page.getByRole('button', { name: 'Prune' });
  assert.equal(await prune.isDisabled(), true, 'without a dry run');
  await one.page.getByRole('button', { name: 'Dry run' }).click();
  await one.page.getByText(/would be removed/).waitFor();
  await prune.click();
  await one.page.getByRole('dialog').getByRole('button', { name: 'Prune' }).click();
  await one.page.getByText(/were removed/).waitFor();
  await one.page.getByRole('button', { name: 'Sign out ada' }).click();
  await one.page.getByRole('button', { name: 'Sign in' }).waitFor();
  assert.deepEqual([...one.errors, ...other.errors], []);
});

test('a node of the clash proxy is chosen, and given back to the automatic choice', async () => {
  await using own = await open('proxy');
  const { page } = own;
  await page.getByRole('button', { name: /Use 日本/ }).click();
  await page.getByLabel('User').fill(USER.name);
  await page.getByLabel('Password').fill(USER.password);
  await page.getByRole('dialog').getByRole('button', { name: 'Sign in' }).click();
  await page.getByText('selected manually').waitFor();
  await page.getByRole('row', { name: /日本.*in use/ }).waitFor();
  await page.getByRole('button', { name: 'Select automatically again' }).click();
  await page.getByText('the fastest, selected automatically').waitFor();
});

test('in Chinese by the language of the browser, with a switch that is remembered', async () => {
  await using own = await open('overview', { locale: 'zh-CN' });
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

test('search, order and page of the images are in the address, and survive a reload', async () => {
  await using own = await open('images?sort=name&order=asc&search=library');
  const { page } = own;
  await page.getByRole('link', { name: /nginx:1.27/ }).waitFor();
  await settled(page);
  assert.equal(await page.getByRole('link', { name: /postgresql/ }).count(), 0);
  await page.getByRole('searchbox').fill('postgres');
  await page.getByRole('link', { name: /postgresql:18.1/ }).waitFor();
  await until(() => page.url().includes('search=postgres'), 'the search is in the address');
  await page.reload();
  await page.getByRole('link', { name: /postgresql:18.1/ }).waitFor();
  assert.match(page.url(), /sort=name/);
});

/** Those of docs/console.md. */
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
    await using own = await open(view, { viewport: { width, height }, ...options });
    await settled(own.page);
    await own.page.mouse.move(0, 0);
    const { length } = await own.page.screenshot({ path: join(directory, `console-${name}.png`), animations: 'disabled' });
    assert.ok(length > 5 * KB && length < MAX_SCREENSHOT_BYTES, `${name}: ${length} bytes`);
  }
});
