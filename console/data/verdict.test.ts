import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseLanguage } from '../language/language.ts';
import type { Check, RunningDownload, UpstreamReport } from './model.ts';
import { sampleUpstream } from './sample-upstream.ts';
import { findVerdict } from './verdict.ts';

const MiB = 2 ** 20;
const DIGEST = `sha256:${'a'.repeat(64)}` as const;
const AT = '2026-03-01T10:00:00Z';
const REPOSITORY = 'ghcr/acme/shop' as RunningDownload['repository'];

function checkOf(more: Partial<Check> = {}): Check {
  return {
    image: 'ghcr.io/acme/shop:2.4',
    repository: REPOSITORY,
    reference: '2.4',
    served: true,
    rule: null,
    reason: 'of the server',
    digest: null,
    firstSeen: null,
    servedFrom: null,
    stored: 'partly',
    tag: null,
    upstream: { answer: 'found', digest: null, message: '' },
    ...more,
  };
}

function downloadOf(bytesPerSecond: number, size: number | null = 64 * MiB): RunningDownload {
  const [digest, receivedBytes] = [DIGEST as RunningDownload['digest'], 2.2 * MiB];
  const names = {
    repository: REPOSITORY,
    image: { name: 'ghcr.io/acme/shop', tag: null },
    upstream: 'ghcr',
    source: 'upstream',
    replica: 'a',
  } as const;
  return { ...names, digest, receivedBytes, size, bytesPerSecond, startedAt: AT, readers: 1 };
}

const situationOf = (upstream: UpstreamReport | undefined, downloads: RunningDownload[] = []) => ({
  upstream,
  clash: undefined,
  downloads,
});

function say(...wanted: Parameters<typeof findVerdict>): [string, string, string] {
  const { tone, word, sentence } = findVerdict(...wanted);
  return [tone, word, sentence.replaceAll(/\s/g, ' ')];
}

test('the answer about a slow image names the causes with their figures, and never begins with a green word', () => {
  chooseLanguage('en');
  const slow = situationOf(sampleUpstream(5012), [downloadOf(18 * 1024)]);
  const sentence = '2.2 MiB of 64.0 MiB downloaded at 18.0 KiB/s, about 59 min left; ghcr takes 5 s to answer.';
  assert.deepEqual(say(checkOf(), slow), ['warning', 'Slow', sentence]);
  const awaited = checkOf({ served: false, upstream: { answer: 'not-asked', digest: null, message: '' } });
  assert.deepEqual(say(awaited, slow), ['warning', 'Slow', sentence], 'before the upstream has answered');
  chooseLanguage('zh');
  assert.deepEqual(say(checkOf(), slow), [
    'warning',
    '慢',
    '已下载 2.2 MiB(共 64.0 MiB),速度 18.0 KiB/s,约剩 59 分钟;ghcr 要 5 秒才响应。',
  ]);
});

test('an image that is stored here is not slow, whatever its upstream does', () => {
  chooseLanguage('en');
  assert.deepEqual(say(checkOf({ stored: 'complete' }), situationOf(sampleUpstream(5012))).slice(0, 2), ['good', 'Stored here']);
});

test('a refused image is not served, and the sentence is the reason', () => {
  chooseLanguage('en');
  const refused = checkOf({ served: false, reason: 'registry.policy.deny: docker.io/grafana/*' });
  assert.deepEqual(say(refused, situationOf(sampleUpstream(5012))), ['bad', 'Not served', 'registry.policy.deny: docker.io/grafana/*']);
  assert.equal(
    say(checkOf({ served: false, repository: null }), situationOf(undefined))[2].startsWith('No upstream serves its host'),
    true,
  );
});

test('a download has a remaining time only if its size and speed are known', () => {
  chooseLanguage('en');
  const sentenceOf = (download: RunningDownload) => say(checkOf(), situationOf(sampleUpstream(80), [download]));
  assert.deepEqual(sentenceOf(downloadOf(0)).slice(1), [
    'Slow',
    '2.2 MiB of 64.0 MiB downloaded, and nothing has arrived for some seconds.',
  ]);
  assert.deepEqual(sentenceOf(downloadOf(1024, null)).slice(1), ['Slow', '2.2 MiB downloaded at 1.0 KiB/s.']);
  assert.deepEqual(sentenceOf(downloadOf(6.2 * MiB)), [
    'info',
    'Being downloaded',
    '2.2 MiB of 64.0 MiB downloaded at 6.2 MiB/s, about 10 s left.',
  ]);
});

test('while the upstream is awaited, an image without a known cause is neither served nor refused', () => {
  chooseLanguage('en');
  const awaited = checkOf({ served: false, upstream: { answer: 'not-asked', digest: null, message: '' } });
  assert.deepEqual(say(awaited, situationOf(sampleUpstream(80))), ['neutral', 'Waiting', '']);
  assert.deepEqual(say(checkOf(), situationOf(sampleUpstream(80))), ['good', 'Served', 'No rule refuses it, and the upstream has it.']);
});
