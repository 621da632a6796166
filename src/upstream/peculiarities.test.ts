import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startConnectProxy } from '../../test/support/connect-proxy.ts';
import {
  basic,
  blob,
  context,
  digest,
  login,
  manifest,
  openUpstream,
  readBlob,
  REPOSITORY,
  serveContent,
  startStub,
  TAG,
  type Call,
} from '../../test/support/stub-registry.ts';
import { sha256 } from '../../test/support/image.ts';
import { createTransport } from '../http/undici-transport.ts';
import { isOciError } from '../oci/error.ts';

// Answers of real registries, with the place where each was seen. docs/upstreams.md has the table.

const challenge = (realm: string, more = '') => ({ 'www-authenticate': `Bearer realm="${realm}"${more}` });

async function pullWhole(reader: ReturnType<typeof openUpstream>): Promise<void> {
  const { bytes } = await reader.registry.manifest(REPOSITORY, TAG, context());
  assert.equal(sha256(Buffer.from(bytes)), sha256(manifest));
  assert.deepEqual(await readBlob(reader), blob);
}

test('Docker Hub: tokens come from another host, blobs from a CDN that must not see them', async () => {
  // auth.docker.io and production.cloudfront.docker.com, as `curl -i
  // https://registry-1.docker.io/v2/` and crane -v show.
  await using cdn = await startStub(({ send }) => send(200, blob));
  await using auth = await startStub(({ headers, send, refuse }) =>
    headers.authorization === basic('u', 'p') ? send(200, { token: 'T', access_token: 'T', expires_in: 300 }) : refuse(401),
  );
  await using hub = await startStub((call) => {
    const { headers, kind, repository, refuse, send } = call;
    if (headers.authorization !== 'Bearer T')
      return refuse(401, '', challenge(`${auth.url}/token`, `,service="registry.docker.io",scope="repository:${repository}:pull"`));
    if (kind === 'blobs') return send(307, '', { location: `${cdn.url}/data?verify=1` });
    serveContent(call);
  });
  await pullWhole(openUpstream(hub.url, { credentials: [login('u', 'p')], authHosts: [auth.host] }));
  assert.deepEqual(auth.seen(), [`GET /token?service=registry.docker.io&scope=repository%3Aacme%2Fweb%3Apull ${basic('u', 'p')}`]);
  assert.deepEqual(cdn.seen(), ['GET /data?verify=1']);
});

test('promise 17: GHCR, Azure: the scope of /v2/ is a placeholder, and private packages are hidden', async () => {
  // ghcr.io answers /v2/ with scope="repository:user/image:pull"; private packages are 404 to
  // anonymous requests.
  await using ghcr = await startStub((call) => {
    const { path, headers, url, send, refuse } = call;
    if (path.startsWith('/token'))
      return headers.authorization === basic('u', 'p') && url.searchParams.get('scope') === 'repository:acme/web:pull'
        ? send(200, { token: 'T' })
        : refuse(403);
    if (path === '/v2/') return refuse(401, '', challenge(`${ghcr.url}/token`, ',service="ghcr.io",scope="repository:user/image:pull"'));
    if (headers.authorization !== 'Bearer T') return refuse(404);
    serveContent(call);
  });
  const reader = openUpstream(ghcr.url, { credentials: [login('u', 'p')] });
  await pullWhole(reader);
  assert.equal(ghcr.seen().filter((line) => line.startsWith('GET /v2/ ') || line === 'GET /v2/').length, 1, '/v2/ is asked once');
  // Azure: a list needs another scope than a pull, and the token service answers `access_token`
  // alone.
  await using acr = await startStub((call) => {
    const { path, headers, url, kind, send, refuse } = call;
    if (path.startsWith('/oauth2')) return send(200, { access_token: Buffer.from(url.searchParams.get('scope') ?? '').toString('hex') });
    const scope = `repository:acme/web:${kind === 'tags' ? 'metadata_read' : 'pull'}`;
    if (headers.authorization !== `Bearer ${Buffer.from(scope).toString('hex')}`)
      return refuse(401, '', challenge(`${acr.url}/oauth2`, `,service="acr",scope="${scope}"`));
    serveContent(call);
  });
  const azure = openUpstream(acr.url);
  for (let round = 0; round < 2; round++) {
    await azure.registry.manifest(REPOSITORY, TAG, context());
    assert.deepEqual((await Array.fromAsync(azure.registry.tags(REPOSITORY, context()))).flat(), ['1']);
  }
  assert.equal(acr.seen().filter((line) => line.includes('oauth2')).length, 2, 'one token a scope');
});

test('Quay: an expired signed CDN URL is requested again', async () => {
  // quay.io redirects blobs to cdn*.quay.io with URLs that end after ten minutes: 403 with XML
  // afterwards.
  let signed = 0;
  await using quay = await startStub((call) => {
    const { path, url, send } = call;
    if (path.startsWith('/cdn'))
      return url.searchParams.get('n') === String(signed)
        ? serveContent({ ...call, kind: 'blobs', reference: digest })
        : send(403, '<Error/>');
    if (call.kind === 'blobs') return send(302, '', { location: `/cdn?n=${++signed}` });
    serveContent(call);
  });
  const reader = openUpstream(quay.url);
  assert.deepEqual(await readBlob(reader), blob);
  assert.deepEqual(await readBlob(reader, { start: 10 }), blob.subarray(10), 'the rest comes by a URL of its own');
  assert.equal(signed, 2);
});

test('GHCR, cgr.dev: a redirect may take 10 s, and its signed URL is for one GET soon after it', async () => {
  // containerd/stargz-snapshotter pull request 167: GHCR's storage answers HEAD by 403, and its URLs
  // end soon. cgr.dev does the same with Cloudflare R2 (chainguard-images/images issue 713).
  let signed = 0;
  const used = new Set<string>();
  let delayMs = 10_000;
  await using storage = await startStub((call) => {
    const { path, method, send } = call;
    if (method === 'HEAD' || used.has(path)) return send(403, '<Error><Code>SignatureDoesNotMatch</Code></Error>');
    used.add(path);
    serveContent({ ...call, kind: 'blobs', reference: digest });
  }, 'localhost');
  await using ghcr = await startStub((call) => {
    if (call.kind !== 'blobs') return serveContent(call);
    setTimeout(() => call.send(307, '', { location: `${storage.url}/${digest}?se=${++signed}` }), delayMs);
    delayMs = 0;
  });
  const reader = openUpstream(ghcr.url);
  assert.deepEqual(await readBlob(reader), blob);
  assert.equal((await reader.registry.stat(REPOSITORY, digest, context())).size, blob.length);
  assert.deepEqual(await readBlob(reader, { start: 10 }), blob.subarray(10));
});

test('docker.elastic.co: an anonymous token comes from another host, as `access_token` alone', async () => {
  // hashicorp/terraform-provider-docker issue 243: realm https://docker-auth.elastic.co/auth.
  await using auth = await startStub(({ send }) => send(200, { access_token: 'T' }), 'localhost');
  await using elastic = await startStub((call) => {
    const scope = `repository:${call.repository}:pull`;
    if (call.headers.authorization === 'Bearer T') return serveContent(call);
    call.refuse(401, 'authentication required', challenge(`${auth.url}/auth`, `,service="token-service",scope="${scope}"`));
  });
  await pullWhole(openUpstream(elastic.url));
  assert.deepEqual(auth.seen(), ['GET /auth?service=token-service&scope=repository%3Aacme%2Fweb%3Apull']);
});

test('gcr.io, *-docker.pkg.dev: a blob is redirected to a long relative path, which needs no token', async () => {
  // ahmetb/serverless-registry-proxy issue 8: Location: /artifacts-downloads/namespaces/… with a
  // signature of 1,068 characters.
  const location = `/artifacts-downloads/namespaces/acme/repositories/web/downloads/${'A'.repeat(1068)}`;
  await using google = await startStub((call) => {
    const { path, headers, send, refuse } = call;
    if (path.startsWith('/v2/token')) return send(200, { token: 'T', expires_in: 43_200 });
    if (path === location) return serveContent({ ...call, kind: 'blobs', reference: digest });
    if (headers.authorization !== 'Bearer T')
      return refuse(401, '', challenge(`${google.url}/v2/token`, ',service="pkg.dev",scope="repository:acme/web:pull"'));
    if (call.kind === 'blobs') return send(302, '', { location });
    serveContent(call);
  });
  const reader = openUpstream(google.url);
  await pullWhole(reader);
  assert.deepEqual(await readBlob(reader, { start: 10 }), blob.subarray(10));
});

test('promise 17: registry.k8s.io, Red Hat, lscr.io, cr.l5d.io: another registry is asked as a client would ask it', async () => {
  // registry.k8s.io → *-docker.pkg.dev, registry.access.redhat.com → registry.redhat.io's CDN
  // (without Accept: schema 1), Scarf's gateways lscr.io and cr.l5d.io → ghcr.io, deciding by
  // User-Agent, with that registry's own token service.
  await using other = await startStub((call) => {
    const { path, headers, refuse, send } = call;
    if (path.startsWith('/token')) return send(200, { token: 'OTHER' });
    if (headers.authorization !== 'Bearer OTHER')
      return refuse(401, '', challenge(`${other.url}/token`, ',service="other",scope="repository:acme/web:pull"'));
    if (call.kind === 'manifests' && !String(headers.accept).includes('oci.image.index')) return refuse(406);
    serveContent(call);
  }, 'localhost');
  await using gateway = await startStub(({ path, headers, send, refuse }) => {
    if (headers.authorization !== basic('u', 'p')) return refuse(401, '', { 'www-authenticate': 'Basic realm="gateway"' });
    return (headers['user-agent'] ?? '') === '' ? refuse(400) : send(307, '', { location: `${other.url}${path}` });
  });
  await pullWhole(openUpstream(gateway.url, { credentials: [login('u', 'p')], headers: { 'x-gateway': 'key' } }));
  assert.ok(gateway.calls.some(({ headers }) => headers['x-gateway'] === 'key'));
  assert.ok(other.calls.every(({ headers }) => headers['x-gateway'] === undefined && headers['user-agent'] !== undefined));
  const shown = new Set(other.seen().map((line) => line.split(' ').slice(2).join(' ')));
  assert.deepEqual(shown, new Set(['', 'Bearer OTHER']), 'credentials of the first never reach the second');
});

test('promise 17: a loop between two registries, and challenges without end, are errors', async () => {
  await using loop = await startStub(({ send }) => send(307, '', { location: `${loop.url.replace('127.0.0.1', 'localhost')}/v2/x` }));
  await assert.rejects(openUpstream(loop.url).registry.manifest(REPOSITORY, TAG, context()), (error) => isOciError(error, 'UNAVAILABLE'));
  let tokens = 0;
  await using asking = await startStub(({ path, send, refuse }) =>
    path.startsWith('/token')
      ? send(200, { token: `T${++tokens}` })
      : refuse(401, '', challenge(`${asking.url}/token`, `,scope="repository:x:${tokens}"`)),
  );
  await assert.rejects(openUpstream(asking.url).registry.manifest(REPOSITORY, TAG, context()), (error) =>
    isOciError(error, 'UNAUTHORIZED'),
  );
  assert.ok(tokens <= 3, `${tokens} tokens`);
});

test('promise 12: a public registry’s token service on an internal address is not asked, and the error names it', async () => {
  await using realm = await startStub(({ send }) => send(200, { token: 'T' }), 'localhost');
  await using hub = await startStub(({ refuse }) => refuse(401, '', challenge(`${realm.url}/token`, ',service="hub"')));
  await using proxy = await startConnectProxy(Number(new URL(hub.url).port)); // the registry's name is a public one
  const routes = { own: createTransport({ proxy: proxy.url }), outside: createTransport({ proxy: proxy.url, externalOnly: true }) };
  await assert.rejects(
    openUpstream('http://registry.example', { routes }).registry.manifest(REPOSITORY, TAG, context()),
    (error) =>
      isOciError(error, 'DENIED') && error.message.includes(`${realm.host} is an internal address`) && /set the url/.test(error.message),
  );
  assert.deepEqual(realm.seen(), []);
});

test('promise 17: a token for another scope is refused once, with what to do', async () => {
  await using hub = await startStub(({ path, send, refuse }) => {
    if (path.startsWith('/token')) return send(200, { token: 'OF-ANOTHER-SCOPE' });
    refuse(401, 'insufficient scope', challenge(`${hub.url}/token`, ',service="hub",scope="repository:acme/web:pull"'));
  });
  await assert.rejects(
    openUpstream(hub.url).registry.manifest(REPOSITORY, TAG, context()),
    (error) => isOciError(error, 'UNAUTHORIZED') && error.message.includes('configure credentials'),
  );
  assert.equal(hub.seen().filter((line) => line.includes('/token')).length, 1);
});

test('promise 12: token services may redirect; credentials follow to allowed hosts alone', async () => {
  // http to https behind an ingress, and to another host (Nexus behind Keycloak). Here both are
  // http.
  await using second = await startStub(
    ({ headers, send }) => send(200, { token: headers.authorization === undefined ? 'ANONYMOUS' : 'LEAKED' }),
    'localhost',
  );
  await using first = await startStub((call) => {
    const { path, headers, send, refuse } = call;
    if (path.startsWith('/token')) return send(301, '', { location: '/moved' });
    if (path.startsWith('/moved'))
      return headers.authorization === basic('u', 'p') ? send(307, '', { location: `${second.url}/token` }) : refuse(401);
    if (headers.authorization !== 'Bearer ANONYMOUS') return refuse(401, '', challenge(`${first.url}/token`));
    serveContent(call);
  });
  await pullWhole(openUpstream(first.url, { credentials: [login('u', 'p')] }));
});

test('nvcr.io: the challenge names neither service nor scope, and the user is $oauthtoken', async () => {
  // nvcr.io: WWW-Authenticate: Bearer realm="https://nvcr.io/proxy_auth?scope=…"; blobs on
  // layers.nvcr.io.
  await using layers = await startStub(({ send }) => send(200, blob), 'localhost');
  await using nvcr = await startStub((call) => {
    const { path, headers, url, kind, send, refuse } = call;
    if (path.startsWith('/proxy_auth'))
      return headers.authorization === basic('$oauthtoken', 'key') && url.searchParams.has('scope')
        ? send(200, { token: 'T' })
        : refuse(401);
    if (headers.authorization !== 'Bearer T') return refuse(401, '', challenge(`${nvcr.url}/proxy_auth`));
    if (kind === 'blobs') return send(302, '', { location: `${layers.url}/x` });
    serveContent(call);
  });
  await pullWhole(openUpstream(nvcr.url, { credentials: [login('$oauthtoken', 'key')] }));
  assert.deepEqual(layers.seen(), ['GET /x']);
});

test('public ECR, Harbor, MCR, Ollama: a refused HEAD is repeated as GET', async () => {
  // Public ECR answers nothing without an anonymous token, whose scope is `aws`, and HEAD of a blob
  // 401 even with one (aws/containers-roadmap issue 2671);
  // Harbor's proxy cache 404 (goharbor/harbor issue 22609); URLs that are signed for GET alone, as
  // those of MCR's data hosts and of Cloudflare R2, 403.
  for (const status of [400, 401, 403, 404, 405, 501]) {
    await using stub = await startStub((call) => {
      const { path, method, headers, refuse, send } = call;
      if (path.startsWith('/token')) return send(200, { token: 'T' });
      const wanted = challenge(`${stub.url}/token/`, ',service="public.ecr.aws",scope="aws"');
      if (headers.authorization !== 'Bearer T') return refuse(401, '', wanted);
      if (method === 'HEAD') return refuse(status, '', status === 401 ? wanted : {});
      serveContent(call);
    });
    const { registry } = openUpstream(stub.url);
    assert.equal((await registry.stat(REPOSITORY, digest, context())).size, blob.length, `HEAD ${status}`);
    assert.equal((await registry.resolve(REPOSITORY, TAG, context())).digest, sha256(manifest), `HEAD ${status}`);
  }
});

test('Artifactory and some CDNs: a refused range is answered by the whole', async () => {
  // Artifactory 7 answers containerd 2.1's ranges 400 (containerd issue 11953); others 403, 416
  // without a size, 501.
  for (const status of [400, 403, 405, 416, 501]) {
    await using stub = await startStub((call) => (call.headers.range === undefined ? serveContent(call) : call.refuse(status)));
    const reader = openUpstream(stub.url);
    const { range } = await reader.registry.blob(REPOSITORY, digest, { ...context(), range: { start: 5 } });
    assert.equal(range, undefined, `the whole, when ranges are refused by ${status}`);
    assert.deepEqual(await readBlob(reader, { start: 5 }), blob);
    assert.equal((await reader.registry.stat(REPOSITORY, digest, context())).size, blob.length);
  }
});

test('gitlab.com, Aliyun: a token service on another host is named when credentials were withheld from it', async () => {
  // registry.gitlab.com: realm https://gitlab.com/jwt/auth; registry.cn-hangzhou.aliyuncs.com:
  // dockerauth.cn-hangzhou.aliyuncs.com.
  await using realm = await startStub(({ refuse }) => refuse(401), 'localhost');
  await using gitlab = await startStub(({ refuse }) =>
    refuse(401, 'access forbidden', challenge(`${realm.url}/jwt/auth`, ',service="container_registry"')),
  );
  const refused = openUpstream(gitlab.url, { credentials: [login('u', 'p')] }).registry.manifest(REPOSITORY, TAG, context());
  await assert.rejects(
    refused,
    (error) => isOciError(error, 'UNAUTHORIZED') && error.message.includes('authHosts') && error.message.includes(realm.host),
  );
  assert.ok(realm.seen().every((line) => !line.includes('Basic')));
});

test('promise 15: final refusals are asked once, in upstream’s own words, and a 404 counts in those of a registry alone', async () => {
  for (const status of [400, 402, 406, 410, 451]) {
    await using stub = await startStub(({ refuse }) => refuse(status, 'not in your country\u001b[31m'));
    const failed = openUpstream(stub.url).registry.manifest(REPOSITORY, TAG, context());
    await assert.rejects(
      failed,
      (error) => isOciError(error, 'DENIED') && /not in your country$|not in your country \[31m/.test(error.message),
    );
    assert.equal(stub.calls.length, 1, `${status}`);
  }
  const notARegistry: [string, string][] = [
    ['text/plain', '404 page not found\n'], // Traefik, ingress-nginx
    ['text/html', '<html>nginx</html>'],
    ['application/json', '{"message":"no Route matched with those values"}'], // Kong
    ['', ''], // Envoy
  ];
  for (const [type, body] of notARegistry) {
    await using stub = await startStub(({ send }) => send(404, body, type === '' ? {} : { 'content-type': type }));
    await assert.rejects(
      openUpstream(stub.url).registry.resolve(REPOSITORY, TAG, context()),
      (error) => isOciError(error, 'UNAVAILABLE'),
      type,
    );
  }
  await using registry = await startStub(({ refuse }) => refuse(404, 'manifest unknown'));
  await assert.rejects(openUpstream(registry.url).registry.resolve(REPOSITORY, TAG, context()), (error) =>
    isOciError(error, 'MANIFEST_UNKNOWN'),
  );
});

test('the bytes decide: with a wrong Content-Encoding, headers of 64 KiB, and without an announced size', async () => {
  // Apache's mod_mime labels *.gz (Pulp), buckets keep a label of the upload; headers grow with
  // single sign-on.
  await using stub = await startStub((call) => {
    const { kind, method, response } = call;
    response.setHeader('content-encoding', 'x-gzip');
    response.setHeader('x-policy', 'p'.repeat(64 * 1024));
    if (kind !== 'blobs') return serveContent(call);
    response.writeHead(200, { 'content-type': 'application/octet-stream' });
    if (method === 'HEAD') return void response.end();
    response.write(blob.subarray(0, 5));
    response.end(blob.subarray(5)); // chunked
  });
  const reader = openUpstream(stub.url);
  await pullWhole(reader);
  assert.equal((await reader.registry.stat(REPOSITORY, digest, context())).size, blob.length);
});

test('promise 12: something that answers 200 to everything does not prove that it has a blob', async () => {
  const page = (call: Call) => call.send(200, '<html>for sale</html>', { 'content-type': 'text/html' });
  await using parked = await startStub(page);
  await assert.rejects(openUpstream(parked.url).origin.stat(REPOSITORY, digest, context()), (error) => isOciError(error, 'UNAVAILABLE'));
  await using wrong = await startStub(({ send }) => send(200, blob, { 'docker-content-digest': sha256(manifest) }));
  await assert.rejects(openUpstream(wrong.url).origin.stat(REPOSITORY, digest, context()), (error) => isOciError(error, 'UNAVAILABLE'));
});
