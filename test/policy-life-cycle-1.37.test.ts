import { policyLifeCycleSuite } from './support/policy-life-cycle-suite.ts';
import { toolPath } from './tools/tools.ts';

policyLifeCycleSuite('1.37', () => toolPath('kube-apiserver-1.37'));
