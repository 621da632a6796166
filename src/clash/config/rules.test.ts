import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseRule } from './rules.ts';

test('a rule names its target, wherever the commas are', () => {
  const cases: [string, string, string, string, string?][] = [
    ['MATCH,auto', 'MATCH', '', 'auto'],
    [' DOMAIN-SUFFIX , example.com , 香港 01 ', 'DOMAIN-SUFFIX', 'example.com', '香港 01'],
    ['ip-cidr,10.0.0.0/8,DIRECT,no-resolve', 'IP-CIDR', '10.0.0.0/8', 'DIRECT', ',no-resolve'],
    ['AND,((DOMAIN,a.example),(NETWORK,UDP)),REJECT', 'AND', '((DOMAIN,a.example),(NETWORK,UDP))', 'REJECT'],
    ['SUB-RULE,(NETWORK,tcp),mine', 'SUB-RULE', '(NETWORK,tcp)', 'mine'],
    ['DOMAIN-REGEX,^a{1,3}[.]example$,auto', 'DOMAIN-REGEX', '^a{1,3}[.]example$', 'auto'],
    ['RULE-SET,ads,REJECT,no-resolve', 'RULE-SET', 'ads', 'REJECT', ',no-resolve'],
  ];
  for (const [line, type, payload, target, options = ''] of cases)
    assert.deepEqual(parseRule(line), { type, payload, target, options }, line);
  for (const line of ['', 'MATCH', ',a', 'DOMAIN,a', 'AND,((DOMAIN,a)']) assert.equal(parseRule(line)?.target ?? '', '', line);
});
