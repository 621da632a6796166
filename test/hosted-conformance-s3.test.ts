import { testConformance } from './support/hosted-conformance.ts';

testConformance({ version: '1.1', kind: 's3', replicas: 3 });
testConformance({ version: 'dev', kind: 's3', replicas: 1 });
