import assert from 'node:assert/strict';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { buildConsole } from '../../console/build.ts';
import { settled, startBrowser, type TestBrowser, type TestPage } from './browser.ts';
import { HOSTILE, startConsoleScene, USER, type ConsoleScene } from './console.ts';
import { until } from './until.ts';

/** A console with everything to show, and a browser. */
export interface ConsolePages extends AsyncDisposable {
  scene: ConsoleScene;
  /** http://127.0.0.1:PORT */
  admin: string;
  ask<Answer>(this: void, path: string): Promise<Answer>;
  /** Opens a view in a context of its own. */
  open(this: void, view: string, options?: Parameters<TestBrowser['open']>[1]): Promise<TestPage>;
  /** The address of an image's view. */
  imageView(this: void, search: string): Promise<string>;
}

export async function startConsolePages(): Promise<ConsolePages> {
  await using stack = new AsyncDisposableStack();
  await buildConsole();
  const [scene, browser] = await Promise.all([
    startConsoleScene().then((own) => stack.use(own)),
    startBrowser({ FONTCONFIG_FILE: join(import.meta.dirname, 'fonts.conf') }).then((own) => stack.use(own)),
  ]);
  const { admin } = scene.registry;
  const { images, pull } = scene;
  await pull('dockerhub/library/nginx', '1.27', images.nginx);
  await pull('dockerhub/library/nginx', '1.27', images.nginx);
  await pull('dockerhub/library/redis', '8.4', images.redis);
  await pull('ghcr/cloudnative-pg/postgresql', '18.1', images.postgresql);
  await pull(`dockerhub/${HOSTILE.repository}`, HOSTILE.tag, images.hostile);
  scene.beginSlowDownload();
  const ask = async <Answer>(path: string): Promise<Answer> => (await (await fetch(admin + path)).json()) as Answer;
  await until(async () => (await ask<{ total: number }>('/api/images')).total >= 4, 'the images are listed');
  const owned = stack.move();
  return {
    scene,
    admin,
    ask,
    open: (view, options) => browser.open(`${admin}/#/${view}`, options),
    async imageView(search) {
      const path = `/api/images?search=${encodeURIComponent(search)}`;
      const { images } = await ask<{ images: { repository: string; digest: string }[] }>(path);
      const [found] = images;
      assert.ok(found !== undefined, search);
      return `images/${found.repository}?digest=${encodeURIComponent(found.digest)}`;
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Goes to another view within the page. */
export async function show(page: Page, view: string): Promise<void> {
  await page.evaluate(`location.hash = ${JSON.stringify(`#/${view}`)}`);
  await page.locator(`.nav a[aria-current=page][href="#/${view.split(/[/?]/, 1)[0] ?? ''}"]`).waitFor({ state: 'attached' });
  await settled(page);
}

export async function signIn(page: Page, user = USER.name): Promise<void> {
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByLabel('User').fill(user);
  await page.getByLabel('Password').fill(USER.password);
  await page.getByRole('dialog').getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('button', { name: `Sign out ${user}` }).waitFor();
}
