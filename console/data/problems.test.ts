import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseLanguage } from '../language/language.ts';
import { isSlowAnswer, proxyName } from './delays.ts';
import type { ClashReport } from './model.ts';
import { findProblems } from './problems.ts';
import { sampleUpstream } from './sample-upstream.ts';

const CLASH: ClashReport = {
  enabled: true,
  problem: null,
  mode: 'nodes',
  port: 7890,
  version: null,
  running: true,
  proven: true,
  restarts: 0,
  chosen: null,
  preferred: null,
  traffic: { uploadedBytes: 0, downloadedBytes: 0, connections: 0 },
  subscriptions: [],
  nodes: [],
  notes: [],
};

test('an upstream is slow on one view if it is slow on the others', () => {
  for (const [p50, requests] of [
    [5012, 7],
    [2500, 3],
    [5012, 2],
    [120, 100],
  ] as const) {
    const upstream = sampleUpstream(p50, requests);
    const none = { overview: undefined, clash: undefined, replicas: undefined, downloads: undefined };
    const problems = findProblems({ ...none, upstreams: { upstreams: [upstream], unreachable: [] } });
    assert.equal(
      problems.some(({ key }) => key === 'problem.slow'),
      isSlowAnswer(upstream.latency),
      `${p50} ms, ${requests} requests`,
    );
  }
});

test('the clash proxy next to the registry has a name, others are named by their URL', () => {
  chooseLanguage('en');
  assert.equal(proxyName('http://127.0.0.1:7890', CLASH), 'the clash proxy');
  assert.equal(proxyName('http://127.0.0.1:17890', CLASH), 'http://127.0.0.1:17890');
  assert.equal(proxyName('http://proxy.corp.example:7890', CLASH), 'http://proxy.corp.example:7890');
  assert.equal(proxyName('http://127.0.0.1:7890', undefined), 'http://127.0.0.1:7890');
});
