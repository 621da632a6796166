import { createPrivateKey, KeyObject, randomBytes, webcrypto, X509Certificate } from 'node:crypto';

/** PEM. */
export interface KeyPair {
  cert: string;
  key: string;
}

const DAY = 24 * 3_600_000;
const AUTHORITY_LIFE = 3650 * DAY;
const LEAF_LIFE = 365 * DAY;
/** Clocks of nodes differ. */
const BEFORE = 3_600_000;
const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };

/** The library decorates its classes, so it wants the polyfill first; both are loaded by who makes certificates only. */
async function load() {
  await import('reflect-metadata');
  return import('@peculiar/x509');
}

/** A certificate authority for 10 years. */
export async function createAuthority(): Promise<KeyPair> {
  const x509 = await load();
  const keys = await webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: randomBytes(16).toString('hex'),
    name: `CN=kube-registry webhook ${randomBytes(4).toString('hex')}`, // each its own name: verifiers look issuers up by it
    ...validity(AUTHORITY_LIFE),
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

/** A server's certificate for a year, for these DNS names. */
export async function issueLeaf(authority: KeyPair, names: readonly string[]): Promise<KeyPair> {
  const x509 = await load();
  const keys = await webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
  const issuer = new x509.X509Certificate(authority.cert);
  const signingKey = createPrivateKey(authority.key).toCryptoKey(ALGORITHM, false, ['sign']);
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: randomBytes(16).toString('hex'),
    subject: 'CN=kube-registry webhook',
    issuer: issuer.subject,
    ...validity(LEAF_LIFE),
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

/** Whether two thirds of its life are over, or it cannot be read. */
export function isDue(pem: string, now = Date.now()): boolean {
  const certificate = parse(pem);
  if (certificate === undefined) return true;
  const [from, to] = [certificate.validFromDate.getTime(), certificate.validToDate.getTime()];
  return now < from || now >= from + ((to - from) * 2) / 3;
}

/** Whether `leaf` is a pair, of this authority, for all of the names. */
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

/** Whether the key is the certificate's. */
export function isPair({ cert, key }: KeyPair): boolean {
  try {
    return parse(cert)?.checkPrivateKey(createPrivateKey(key)) === true;
  } catch (error) {
    if (error instanceof Error) return false; // OpenSSL's, of a key that is none
    throw error;
  }
}

/** The certificates of bundles, once each, without those that have expired; the first `limit`. */
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
  return { notBefore: new Date(now - BEFORE), notAfter: new Date(now + life) };
}

function exportKey(key: webcrypto.CryptoKey): string {
  return KeyObject.from(key).export({ type: 'pkcs8', format: 'pem' });
}

function parse(pem: string): X509Certificate | undefined {
  try {
    return new X509Certificate(pem);
  } catch (error) {
    if (error instanceof Error) return undefined; // OpenSSL's, of what is no certificate
    throw error;
  }
}
