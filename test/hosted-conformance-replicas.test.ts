import { testConformance } from './support/hosted-conformance.ts';

testConformance({ kind: 'filesystem', replicas: 3, versions: ['dev'] });
