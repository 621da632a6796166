import { createPrivateKey, KeyObject, randomBytes, webcrypto, X509Certificate } from 'node:crypto';

/** A certificate and its private key, PEM. */
export interface KeyPair {
  cert: string;
  key: string;
}

const DAY_MS = 24 * 3_600_000;
const AUTHORITY_LIFE_MS = 3650 * DAY_MS;
const LEAF_LIFE_MS = 365 * DAY_MS;
/** Certificates are valid from this long ago: the clocks of nodes differ. */
const BACKDATE_MS = 3_600_000;
const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };

/** Loads the library only when a certificate is created. It uses decorators and needs the polyfill
 *  first. */
async function load() {
  await import('reflect-metadata');
  return import('@peculiar/x509');
}

/** Creates a certificate authority that is valid for 10 years. */
export async function createAuthority(): Promise<KeyPair> {
  const x509 = await load();
  const keys = await webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: randomBytes(16).toString('hex'),
    name: `CN=kube-registry webhook ${randomBytes(4).toString('hex')}`, // unique: verifiers look issuers up by name
    ...validity(AUTHORITY_LIFE_MS),
    signingAlgorithm: ALGORITHM,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { cert: certificate.toString('pem'), key: exportKey(keys.privateKey) };
}

/** Issues a server certificate for these DNS names that is valid for a year. */
export async function issueLeaf(authority: KeyPair, names: readonly string[]): Promise<KeyPair> {
  const x509 = await load();
  const keys = await webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
  const issuer = new x509.X509Certificate(authority.cert);
  const signingKey = createPrivateKey(authority.key).toCryptoKey(ALGORITHM, false, ['sign']);
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: randomBytes(16).toString('hex'),
    subject: 'CN=kube-registry webhook',
    issuer: issuer.subject,
    ...validity(LEAF_LIFE_MS),
    signingAlgorithm: ALGORITHM,
    publicKey: keys.publicKey,
    signingKey,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      new x509.SubjectAlternativeNameExtension(names.map((value) => ({ type: 'dns', value }))),
      await x509.AuthorityKeyIdentifierExtension.create(issuer),
    ],
  });
  return { cert: certificate.toString('pem'), key: exportKey(keys.privateKey) };
}

/** True if two thirds of the certificate's life are over, or if it is not a certificate. */
export function isDue(pem: string, now = Date.now()): boolean {
  const certificate = parse(pem);
  if (certificate === undefined) return true;
  const [from, to] = [certificate.validFromDate.getTime(), certificate.validToDate.getTime()];
  return now < from || now >= from + ((to - from) * 2) / 3;
}

/** True if `leaf` is a certificate with its key, issued by this authority for all of the names. */
export function isLeafOf(leaf: KeyPair, authority: KeyPair, names: readonly string[]): boolean {
  const [certificate, issuer] = [parse(leaf.cert), parse(authority.cert)];
  return (
    certificate !== undefined &&
    issuer !== undefined &&
    isPair(leaf) &&
    certificate.checkIssued(issuer) &&
    certificate.verify(issuer.publicKey) &&
    names.every((name) => certificate.checkHost(name, { subject: 'never' }) !== undefined)
  );
}

/** True if the key belongs to the certificate. */
export function isPair({ cert, key }: KeyPair): boolean {
  try {
    return parse(cert)?.checkPrivateKey(createPrivateKey(key)) === true;
  } catch (error) {
    if (error instanceof Error) return false; // OpenSSL: not a key
    throw error;
  }
}

/** Joins PEM bundles: every certificate once, in order, without expired ones, and at most
 *  `limit`. */
export function mergeBundles(bundles: readonly string[], limit: number): string {
  const found = new Map<string, string>();
  for (const pem of bundles.flatMap((bundle) => bundle.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [])) {
    const certificate = parse(pem);
    if (certificate !== undefined && certificate.validToDate.getTime() > Date.now()) found.set(certificate.fingerprint256, pem);
  }
  return [...found.values()]
    .slice(0, limit)
    .map((pem) => `${pem}\n`)
    .join('');
}

function validity(life: number): { notBefore: Date; notAfter: Date } {
  const now = Date.now();
  return { notBefore: new Date(now - BACKDATE_MS), notAfter: new Date(now + life) };
}

function exportKey(key: webcrypto.CryptoKey): string {
  return KeyObject.from(key).export({ type: 'pkcs8', format: 'pem' });
}

function parse(pem: string): X509Certificate | undefined {
  try {
    return new X509Certificate(pem);
  } catch (error) {
    if (error instanceof Error) return undefined; // OpenSSL: not a certificate
    throw error;
  }
}
