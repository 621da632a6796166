import { testConformance } from './support/hosted-conformance.ts';

testConformance({ version: '1.1', kind: 'filesystem', replicas: 1 });
testConformance({ version: 'dev', kind: 'filesystem', replicas: 3 });
