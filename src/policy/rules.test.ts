import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseDigest } from '../oci/digest.ts';
import { parseRepository, parseTag } from '../oci/reference.ts';
import { createRules } from './rules.ts';

const digest = parseDigest(`sha256:${'a'.repeat(64)}`);
const namesOf = (repository: string) => [repository.replace(/^dockerhub\//, 'docker.io/'), repository];

/** Rules, a reference of dockerhub/library/nginx, the tags that lead to it, and whether it may be
 *  pulled. */
const CASES: [name: string, rules: { allow?: string[]; deny?: string[] }, reference: string, tags: string[], allowed: boolean][] = [
  ['no rule', {}, '1', [], true],
  ['a glob over a registry', { allow: ['docker.io/*'] }, '1', [], true],
  ['a glob over a registry admits digests', { allow: ['docker.io/*'] }, digest, [], true],
  ['a glob over another registry', { allow: ['ghcr.io/*'] }, '1', [], false],
  ['a glob over another registry refuses digests', { allow: ['ghcr.io/*'] }, digest, [], false],
  ['the name under which it is served', { allow: ['dockerhub/library/nginx'] }, '1', [], true],
  ['a repository with all its tags', { deny: ['docker.io/library/nginx'] }, '1', [], false],
  ['a repository with all its digests', { deny: ['docker.io/library/nginx'] }, digest, ['1'], false],
  ['deny wins over allow', { allow: ['docker.io/*'], deny: ['docker.io/library/*'] }, '1', [], false],
  ['one tag', { deny: ['docker.io/library/nginx:1'] }, '1', [], false],
  ['not another tag', { deny: ['docker.io/library/nginx:1'] }, '2', [], true],
  ['a glob of tags', { deny: ['*:latest'] }, 'latest', [], false],
  ['a digest that only a refused tag has', { deny: ['*:latest'] }, digest, ['latest'], false],
  ['a digest that a permitted tag has as well', { deny: ['*:latest'] }, digest, ['latest', '1.27'], true],
  ['a digest of no known tag', { deny: ['*:latest'] }, digest, [], true],
  ['an admitted tag', { allow: ['docker.io/library/nginx:1.*'] }, '1.27', [], true],
  ['a digest of an admitted tag', { allow: ['docker.io/library/nginx:1.*'] }, digest, ['1.27'], true],
  ['a digest of no known tag, with tags admitted', { allow: ['docker.io/library/nginx:1.*'] }, digest, [], false],
  ['an admitted digest', { allow: [`docker.io/library/nginx@${digest}`] }, digest, [], true],
  ['a refused digest', { deny: [`*@${digest}`] }, digest, ['1'], false],
  ['a glob that begins with an exclamation mark excludes nothing', { allow: ['!docker.io/*'] }, '1', [], false],
  ['alternatives', { allow: ['docker.io/library/{nginx,redis}:{1,2}'] }, digest, ['2'], true],
];

for (const [name, { allow = [], deny = [] }, reference, tags, allowed] of CASES) {
  test(`rules: ${name}: ${JSON.stringify({ allow, deny })} ${allowed ? 'admits' : 'refuses'} ${reference.slice(0, 12)}`, () => {
    const rules = createRules({ allow, deny, namesOf });
    const repository = parseRepository('dockerhub/library/nginx');
    const known = tags.map(parseTag);
    const verdict = reference === digest ? rules.digest(repository, digest, known) : rules.tag(repository, parseTag(reference));
    assert.equal(verdict.allowed, allowed);
    if (!allowed) assert.match(verdict.rule ?? '', /^registry\.policy\.(?:allow|deny) /);
    if (tags.length > 0 && rules.digest(repository, digest, []).allowed !== allowed) assert.ok(rules.dependsOnTags(repository, digest));
  });
}
