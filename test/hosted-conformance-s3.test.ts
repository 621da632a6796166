import { testConformance } from './support/hosted-conformance.ts';

testConformance({ kind: 's3', replicas: 1, versions: ['dev'] });
