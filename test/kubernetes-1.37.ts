// npm run test:1.37: what test/rewriting-1.36.test.ts and test/policy-life-cycle-1.36.test.ts show, on
// Kubernetes 1.37. It is not part of `npm test`, because building a further kube-apiserver takes long.
import { policyLifeCycleSuite } from './support/policy-life-cycle-suite.ts';
import { rewritingSuite } from './support/rewriting-suite.ts';
import { toolPath } from './tools/tools.ts';

rewritingSuite('1.37', () => toolPath('kube-apiserver-1.37'));
policyLifeCycleSuite('1.37', () => toolPath('kube-apiserver-1.37'));
