import { testConformance } from './support/hosted-conformance.ts';

testConformance({ kind: 'filesystem', replicas: 1, versions: ['1.1', 'dev'] });
