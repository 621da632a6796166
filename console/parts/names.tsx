import { routeTo } from '../data/router.ts';
import { visible } from '../data/format.ts';

/** Text from outside: isolated in its direction, with invisible characters escaped. */
export function Foreign({ text }: { text: string }) {
  return <bdi>{visible(text)}</bdi>;
}

/** `sha256:` and the first digits, with the whole digest as the title. */
export function Digest({ digest }: { digest: string }) {
  const [algorithm = '', hex = ''] = digest.split(':', 2);
  return (
    <code title={digest}>
      {algorithm}:{hex.slice(0, 12)}…
    </code>
  );
}

export function ImageLink({ repository, digest, name }: { repository: string; digest: string; name: string }) {
  return (
    <a href={routeTo('images', { rest: repository, digest })}>
      <Foreign text={name} />
    </a>
  );
}
