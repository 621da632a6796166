import fc from 'fast-check';

/** The content that the valid requests ask for. */
export interface HostileTargets {
  /** With the upstream's name in front. */
  repository: string;
  /** Digests of a manifest and a layer that are there. */
  manifest: string;
  layer: string;
}

/** Requests, byte for byte, that no client would send: paths that lead out of where they belong,
 *  names and digests that are none, odd headers, bodies, methods and versions, and plain noise;
 *  among them good ones. The same ones for the same seed. */
export function hostileRequests(count: number, seed: number, { repository, manifest, layer }: HostileTargets): string[] {
  const nasty = fc.oneof(
    {
      weight: 4,
      arbitrary: fc.constantFrom(
        '..',
        '.',
        '%2e%2e',
        '%2f',
        '%5c',
        '%00',
        '%0d%0a',
        '%c0%af',
        '%ff',
        '\\',
        '//',
        '~',
        '|',
        '$(x)',
        "'",
        '<script>',
      ),
    },
    {
      weight: 2,
      arbitrary: fc.constantFrom(
        'NGINX',
        'a'.repeat(300),
        '__proto__',
        'constructor',
        'sha256:',
        `sha256:${'A'.repeat(64)}`,
        'sha512:00',
        'md5:00',
      ),
    },
    { weight: 2, arbitrary: fc.string({ maxLength: 30 }) },
    { weight: 1, arbitrary: fc.string({ unit: 'binary', maxLength: 20 }) },
  );
  const fair = fc.constantFrom(...repository.split('/'), repository, 'latest', '1.0', layer, manifest, 'uploads', 'list', '_catalog');
  const verb = fc.constantFrom('manifests', 'blobs', 'tags', 'referrers', 'uploads');
  const query = fc.oneof(
    fc.constant(''),
    fc
      .array(fc.tuple(fc.constantFrom('n', 'last', 'ns', 'artifactType', 'digest', 'x'), fc.oneof(nasty, fair, fc.integer().map(String))), {
        maxLength: 4,
      })
      .map((pairs) => `?${pairs.map(([name, value]) => `${name}=${value}`).join('&')}`),
  );
  const target = fc
    .oneof(
      { weight: 3, arbitrary: fc.tuple(fc.constant(repository.split('/')), verb, fair, query) },
      { weight: 6, arbitrary: fc.tuple(fc.array(fc.oneof(nasty, fair), { maxLength: 4 }), verb, fc.oneof(nasty, fair), query) },
      { weight: 1, arbitrary: fc.tuple(fc.array(nasty, { maxLength: 3 }), nasty, nasty, query) },
    )
    .map(([name, verb, argument, query]) => `/v2/${name.join('/')}/${verb}/${argument}${query}`);

  const usualHeader = fc.tuple(
    fc.constantFrom('Range', 'If-None-Match', 'If-Range', 'Accept', 'Authorization', 'X-Kube-Registry-Hop', 'Cookie', 'Upgrade', 'TE'),
    fc.oneof(
      fc.constantFrom(
        'bytes=0-1',
        'bytes=-5',
        'bytes=9-',
        'bytes=0-0,1-1',
        `bytes=${'9'.repeat(40)}-`,
        '*',
        'websocket',
        '1',
        '',
        'a'.repeat(4_000),
      ),
      fc.constantFrom(`"${layer}"`, `"${manifest}"`, '"', "' OR 1=1", '../../etc/passwd', '\u00ff\u00fe'),
    ),
  );
  const strangeHeader = fc.oneof(
    fc.tuple(
      fc.constantFrom('Content-Length', 'Transfer-Encoding', 'Expect'),
      fc.constantFrom('0', '5', '-1', '99999999999999999999', 'chunked', 'gzip, chunked', '100-continue', 'x'),
    ),
    fc.tuple(fc.string({ maxLength: 12 }), nasty),
  );
  const header = fc.oneof({ weight: 12, arbitrary: usualHeader }, { weight: 1, arbitrary: strangeHeader });
  const request = fc
    .record({
      method: fc.oneof(
        { weight: 20, arbitrary: fc.constantFrom('GET', 'HEAD') },
        { weight: 2, arbitrary: fc.constantFrom('PUT', 'POST', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE', 'CONNECT', 'PROPFIND', 'QUERY') },
        { weight: 1, arbitrary: fc.string({ maxLength: 8 }) },
      ),
      target: fc.oneof({ weight: 8, arbitrary: target }, { weight: 1, arbitrary: fc.string({ maxLength: 60 }) }),
      version: fc.oneof(
        { weight: 30, arbitrary: fc.constant('HTTP/1.1') },
        { weight: 1, arbitrary: fc.constantFrom('HTTP/1.0', 'HTTP/2.0', 'HTTP/9', '') },
      ),
      headers: fc.array(header, { maxLength: 4 }),
      body: fc.oneof({ weight: 20, arbitrary: fc.constant('') }, { weight: 1, arbitrary: nasty }),
    })
    .map(({ method, target, version, headers, body }) => {
      const lines = [
        `${method} ${target} ${version}`,
        'Host: registry',
        'Connection: close',
        ...headers.map(([name, value]) => `${name}: ${value}`),
      ];
      return `${lines.join('\r\n')}\r\n\r\n${body}`;
    });
  const anything = fc.oneof(
    { weight: 30, arbitrary: request },
    { weight: 1, arbitrary: fc.string({ unit: 'binary', minLength: 1, maxLength: 200 }) },
  );
  return fc.sample(anything, { numRuns: count, seed });
}
