import { testConformance } from './support/hosted-conformance.ts';

testConformance({ kind: 's3', replicas: 3, versions: ['dev'] });
