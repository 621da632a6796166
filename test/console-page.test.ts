import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { isInWindow, settled, styleOf, timingsOf } from './support/browser.ts';
import { show, signIn, startConsolePages, type ConsolePages } from './support/console-page.ts';
import { HOSTILE, SLOW_IMAGE, USER } from './support/console.ts';
import { until } from './support/until.ts';

const KB = 1000;

let pages: ConsolePages;
before(async () => {
  pages = await startConsolePages();
});
after(() => pages[Symbol.asyncDispose]());

test('the first view is under 150 kB, comes from the registry alone, and keeps to its Content-Security-Policy', async (t) => {
  await using own = await pages.open('overview');
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
    figures.entries.filter(({ name }) => !name.startsWith(`${pages.admin}/`)),
    [],
  );
  assert.deepEqual(own.errors, []);
});

test('the first view asks each question once, and loads the code of its plots when it has the figures', async () => {
  await using own = await pages.open('overview');
  await own.page.locator('.uplot').first().waitFor();
  await settled(own.page);
  const { entries } = await timingsOf(own.page);
  const questions = entries.filter(({ name }) => name.includes('/api/')).map(({ name }) => name);
  assert.deepEqual(questions.toSorted(), [...new Set(questions)].toSorted());
  const find = (part: string) => entries.find(({ name }) => name.includes(part)) ?? assert.fail(`${part} is loaded`);
  assert.ok(find('/assets/plots-').startMs >= find('/api/overview').endMs);
});

test('the first view shows the remaining pulls, the largest image and the node in use', async () => {
  await using own = await pages.open('overview');
  const { page } = own;
  await settled(page);
  await page
    .getByRole('region', { name: 'Remaining pulls' })
    .getByRole('row', { name: /dockerhub 6\d/ })
    .waitFor();
  const largest = page.getByRole('region', { name: 'Largest images' }).getByRole('row').nth(1);
  await largest.getByRole('link', { name: 'ghcr.io/cloudnative-pg/postgresql:18.1' }).waitFor();
  await page
    .locator('.figure', { hasText: 'Largest image' })
    .getByRole('link', { name: 'ghcr.io/cloudnative-pg/postgresql:18.1' })
    .waitFor();
  await page
    .locator('.figure', { hasText: 'Proxy node in use' })
    .getByText(/香港 01 \| IEPL|日本 02 <b>BGP<\/b>/)
    .waitFor();
});

test('the page shows why an image is slow: its download, its speed, and the proxy node', async () => {
  await using own = await pages.open('overview');
  const { page } = own;
  const state = page.getByRole('region', { name: 'State' });
  const notice = state.locator('.notice', { hasText: `The download of ${SLOW_IMAGE} is slow` });
  await notice.getByText(/downloaded at .*\/s, about .* left/).waitFor();
  await notice.getByRole('link', { name: 'Downloads' }).click();
  const row = page.getByRole('row', { name: new RegExp(SLOW_IMAGE) });
  await row.getByText(/\/s/).first().waitFor();
  await row.getByText(/Proxy node in use: (香港|日本)/).waitFor();
  const progress = row.getByRole('progressbar');
  const before = await progress.getAttribute('aria-valuetext');
  await until(async () => (await progress.getAttribute('aria-valuetext')) !== before, 'the progress goes on by itself');
  await show(page, 'overview');
  await notice.getByRole('link', { name: 'Why is it slow?' }).click();
  const answer = page.getByRole('region', { name: 'Why is an image slow, or refused?' });
  await answer.getByText(/downloaded at .*\/s, about .* left/).waitFor();
  await answer.getByText('Has the image').waitFor();
  assert.match((await answer.locator('.badge').first().textContent()) ?? '', /^Slow$/);
  assert.ok(await isInWindow(answer.getByText(/downloaded at/)), 'the answer is scrolled into view');
  await page.getByLabel('Image', { exact: true }).fill('nginx:1.27');
  await page.keyboard.press('Enter');
  await page.getByText('The whole image is stored here').waitFor();
  assert.deepEqual(own.errors, []);
});

test('an upstream with a running download does not look idle', async () => {
  await using own = await pages.open('upstreams');
  const row = own.page.getByRole('row', { name: /dockerhub/ }).first();
  await row.getByText(/One download is running, .*\/s/).waitFor();
  assert.equal(await row.getByText('last request').count(), 0);
  await row.getByText('through the clash proxy').waitFor();
  const limits = own.page.getByRole('region', { name: 'Remaining pulls' });
  await limits.getByRole('row', { name: /ghcr no limit reported/ }).waitFor();
});

test('an image that is partly stored has its stored and its whole size', async () => {
  await using own = await pages.open('images?search=pytorch');
  const row = own.page.getByRole('row', { name: new RegExp(SLOW_IMAGE) });
  await row.getByText(/^[\d.,]+\s(B|KiB) of 48\.0\sMiB stored$/).waitFor();
});

test('everything can be done by keyboard, and the focus can be seen', async () => {
  await using own = await pages.open('overview');
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
  await using own = await pages.open('overview');
  const { page } = own;
  await show(page, await pages.imageView(HOSTILE.repository));
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
  await using one = await pages.open('overview');
  await using other = await pages.open('overview');
  await signIn(one.page);
  await signIn(other.page, 'bob');
  const view = await pages.imageView('redis');
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
  await using own = await pages.open('proxy');
  const { page } = own;
  const use = page.getByRole('button', { name: /Use 日本/ });
  assert.equal(await use.getAttribute('title'), 'Sign in to use');
  await use.click();
  await page.getByLabel('User').fill(USER.name);
  await page.getByLabel('Password').fill(USER.password);
  await page.getByRole('dialog').getByRole('button', { name: 'Sign in' }).click();
  await page.getByText('selected manually').waitFor();
  assert.equal(await page.getByTitle('Sign in to use').count(), 0);
  await page.getByRole('row', { name: /日本.*in use/ }).waitFor();
  await page.getByRole('button', { name: 'Select automatically again' }).click();
  await page.getByText('the fastest, selected automatically').waitFor();
});

test('search, order and page of the images are in the address, and survive a reload', async () => {
  await using own = await pages.open('images?sort=name&order=asc&search=library');
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
