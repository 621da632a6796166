import axe from 'axe-core';
import type { AxeResults } from 'axe-core';
import { chromium, type Browser, type BrowserContextOptions, type Locator, type Page } from 'playwright-core';
import { debianTool } from '../tools/tools.ts';
import { until } from './until.ts';

/** How long an expected element may take: machines that run tests do much else. */
const WAIT_MS = 60_000;

export interface TestBrowser extends AsyncDisposable {
  /** A page in a separate context, with the errors so far. */
  open(url: string, options?: BrowserContextOptions): Promise<TestPage>;
}

export interface TestPage extends AsyncDisposable {
  page: Page;
  /** Errors of scripts, of the console, and of its Content-Security-Policy. */
  errors: string[];
}

/** Debian's chromium, without a window. `env`: further variables of its process. */
export async function startBrowser(env: Record<string, string> = {}): Promise<TestBrowser> {
  const browser: Browser = await chromium.launch({
    executablePath: await debianTool('chromium'),
    args: ['--no-sandbox'], // chromium has no sandbox for root
    env: { ...process.env, ...env },
  });
  return {
    async open(url, options = {}) {
      const context = await browser.newContext({ locale: 'en-GB', viewport: { width: 1280, height: 800 }, ...options });
      context.setDefaultTimeout(WAIT_MS);
      const page = await context.newPage();
      const errors: string[] = [];
      page.on('pageerror', ({ message }) => errors.push(message));
      page.on('console', (message) => {
        if (['error', 'warning'].includes(message.type())) errors.push(message.text());
      });
      await page.goto(url, { waitUntil: 'load' });
      return { page, errors, [Symbol.asyncDispose]: () => context.close() };
    },
    [Symbol.asyncDispose]: () => browser.close(),
  };
}

/** Waits until a view has loaded its data. */
export async function settled(page: Page): Promise<void> {
  await page.locator('h1').waitFor();
  await until(async () => (await page.locator('.loading').count()) === 0, 'nothing is being loaded');
}

/** The findings of axe-core, one per line. */
export async function findingsOf(page: Page): Promise<string[]> {
  // By the debugger's way, which the page's Content-Security-Policy does not concern.
  await page.evaluate(axe.source);
  const { violations, incomplete } = await page.evaluate<AxeResults>('axe.run()');
  return [
    ...violations.map((finding) => ({ ...finding, kind: 'violation' })),
    ...incomplete
      .filter(({ impact }) => impact === 'serious' || impact === 'critical')
      .map((finding) => ({ ...finding, kind: 'incomplete' })),
  ].map(
    ({ kind, id, help, nodes }) =>
      `${kind} ${id}: ${help}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary ?? ''}`).join('; ')}`,
  );
}

/** Bytes of live objects of the page's script. */
export async function heapOf(page: Page): Promise<number> {
  const session = await page.context().newCDPSession(page);
  try {
    await session.send('HeapProfiler.collectGarbage');
    const { usedSize } = await session.send('Runtime.getHeapUsage');
    return usedSize;
  } finally {
    await session.detach();
  }
}

export interface Timings {
  /** All resources that the page has fetched, including the page; bytes as transferred. */
  entries: { name: string; bytes: number; startMs: number; endMs: number }[];
  /** Until the first contentful paint, and until now. */
  paintMs: number;
  nowMs: number;
}

// Code that runs in the page is text, because the types of browser globals and of Node conflict in
// one program.

/** As reported by the browser's performance API. */
export async function timingsOf(page: Page): Promise<Timings> {
  return page.evaluate<Timings>(`({
    entries: [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]
      .map(({ name, transferSize, startTime, responseEnd }) => ({ name, bytes: transferSize, startMs: startTime, endMs: responseEnd })),
    paintMs: performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0,
    nowMs: performance.now(),
  })`);
}

/** The elements that reach beyond the window's right edge, except those inside scrollable
 *  elements. */
export async function widerThanWindow(page: Page): Promise<string[]> {
  return page.evaluate<string[]>(`[...document.querySelectorAll('#app *')]
    .filter((element) => element.closest('.scroll, .hidden-text') === null)
    .filter((element) => element.getBoundingClientRect().right > innerWidth + 1)
    .map(({ outerHTML }) => outerHTML.slice(0, 120))`);
}

/** The computed value of a property of the first element that `selector` finds. */
export async function styleOf(page: Page, selector: string, property: string): Promise<string> {
  const element = `document.querySelector(${JSON.stringify(selector)})`;
  return page.evaluate<string>(`getComputedStyle(${element})[${JSON.stringify(property)}]`);
}

/** Whether the window shows an element. */
export async function isInWindow(element: Locator): Promise<boolean> {
  const box = await element.boundingBox();
  const height = element.page().viewportSize()?.height ?? 0;
  return box !== null && box.y >= 0 && box.y + box.height <= height;
}
