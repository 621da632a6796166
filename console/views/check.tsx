import { useEffect, useRef, useState } from 'preact/hooks';
import { apiPath } from '../data/api.ts';
import { findDelays, type Situation } from '../data/delays.ts';
import { formatMilliseconds } from '../data/format.ts';
import { live } from '../data/live.ts';
import type { Check, ClashReport, UpstreamReport, Upstreams } from '../data/model.ts';
import { useQuery } from '../data/query.ts';
import { route, setParameters } from '../data/router.ts';
import { findVerdict } from '../data/verdict.ts';
import { t } from '../language/language.ts';
import { Loaded } from '../parts/async.tsx';
import { ImageForm } from '../parts/image-form.tsx';
import { Badge, Section, type Tone } from '../parts/marks.tsx';
import { Digest, Foreign } from '../parts/names.tsx';
import { When } from '../parts/time.tsx';

/** Checks one image: whether it would be served, from where, and what currently delays it. A link
 *  may name the image: `#/overview?check=nginx`. */
export function CheckImage() {
  const linked = route.value.parameters.get('check') ?? '';
  const [typed, setTyped] = useState(linked);
  useEffect(() => setTyped(linked), [linked]);
  const [round, setRound] = useState(0);
  return (
    <Section id="check" title={t('check.title')}>
      <ImageForm
        id="check-image"
        label={t('check.label')}
        value={typed}
        onInput={setTyped}
        onSubmit={() => {
          setParameters({ check: typed.trim() });
          setRound(round + 1);
        }}
        button={
          <button type="submit" class="button" disabled={typed.trim() === ''}>
            {t('check.button')}
          </button>
        }
      />
      {linked === '' ? null : <Answer key={`${round} ${linked}`} image={linked} />}
    </Section>
  );
}

/** What is stored here is shown at once: a slow upstream takes seconds to answer. */
function Answer({ image }: { image: string }) {
  const local = useQuery<Check>(apiPath('/api/check', { image, ask: 'no' }));
  const asked = useQuery<Check>(apiPath('/api/check', { image }));
  const upstreams = useQuery<Upstreams>('/api/upstreams');
  const clash = useQuery<ClashReport>('/api/clash');
  const panel = useRef<HTMLDivElement>(null);
  const isAwaited = asked.loading && asked.error === undefined;
  const found = isAwaited ? (local.data ?? asked.data) : asked.data;
  useEffect(() => panel.current?.scrollIntoView({ block: 'nearest' }), [found === undefined, isAwaited]);
  return (
    <Loaded query={{ ...asked, data: found, error: asked.error ?? (found === undefined ? local.error : undefined) }}>
      {(check) => {
        const situation = situationOf(check, { upstreams: upstreams.data, clash: clash.data });
        return (
          <div class="panel stack" ref={panel}>
            <Summary check={check} situation={situation} />
            {isAwaited ? <Asking upstream={situation.upstream} /> : null}
            <Delays situation={situation} />
            <Facts check={check} />
          </div>
        );
      }}
    </Loaded>
  );
}

function situationOf(
  { repository }: Check,
  { upstreams, clash }: { upstreams: Upstreams | undefined; clash: ClashReport | undefined },
): Situation {
  const name = repository?.split('/', 1)[0];
  return {
    upstream: upstreams?.upstreams.find((own) => own.name === name),
    clash,
    downloads: (live.downloads.value?.downloads ?? []).filter((download) => download.repository === repository),
  };
}

function Summary({ check, situation }: { check: Check; situation: Situation }) {
  const { tone, word, sentence } = findVerdict(check, situation);
  return (
    <>
      <p class="row">
        <Badge tone={tone}>{word}</Badge>
        <b>
          <Foreign text={check.image} />
        </b>
      </p>
      {sentence === '' ? null : (
        <p>
          <Foreign text={sentence} />
        </p>
      )}
      {/* Only the word: a screen reader would read figures aloud with every change. */}
      <p class="hidden-text" role="status">
        {word}
      </p>
    </>
  );
}

function Asking({ upstream }: { upstream: UpstreamReport | undefined }) {
  if (upstream === undefined) return <p class="loading">{t('loading')}</p>;
  const { name, latency } = upstream;
  return (
    <p class="loading">
      {latency === null
        ? t('check.askingFirst', { upstream: name })
        : t('check.asking', { upstream: name, time: formatMilliseconds(latency.p95) })}
    </p>
  );
}

const ANSWER_TONES: Record<Check['upstream']['answer'], Tone> = {
  found: 'good',
  absent: 'warning',
  refused: 'bad',
  limited: 'bad',
  unreachable: 'bad',
  'not-asked': 'neutral',
};
const STORED_TONES: Record<Check['stored'], Tone> = { complete: 'good', partly: 'info', no: 'neutral' };

function Facts({ check: { stored, upstream, tag, digest, rule, firstSeen, servedFrom } }: { check: Check }) {
  return (
    <dl class="facts">
      <dt>{t('check.stored')}</dt>
      <dd>
        <Badge tone={STORED_TONES[stored]}>{t(`check.stored.${stored}`)}</Badge>
      </dd>
      <dt>{t('check.upstream')}</dt>
      <dd>
        <Badge tone={ANSWER_TONES[upstream.answer]}>{t(`check.upstream.${upstream.answer}`)}</Badge>{' '}
        {upstream.answer === 'found' || upstream.answer === 'not-asked' ? null : <Foreign text={upstream.message} />}
      </dd>
      {rule === null ? null : (
        <>
          <dt>{t('check.rule')}</dt>
          <dd>
            <code>{rule}</code>
          </dd>
        </>
      )}
      {digest === null ? null : (
        <>
          <dt>{t('image.digest')}</dt>
          <dd>
            <Digest digest={digest} />
          </dd>
        </>
      )}
      {tag === null ? null : (
        <>
          <dt>{t('check.tag')}</dt>
          <dd>
            {t(tag.fresh ? 'check.fresh' : 'check.stale')} <When at={tag.checkedAt} />
          </dd>
        </>
      )}
      {firstSeen === null ? null : (
        <>
          <dt>{t('image.firstSeen')}</dt>
          <dd>
            <When at={firstSeen} />
          </dd>
        </>
      )}
      {servedFrom === null ? null : (
        <>
          <dt>{t('check.servedFrom')}</dt>
          <dd>
            <When at={servedFrom} />
          </dd>
        </>
      )}
    </dl>
  );
}

function Delays({ situation }: { situation: Situation }) {
  const delays = findDelays(situation);
  if (delays.length === 0) return null;
  return (
    <div>
      <h3>{t('check.now')}</h3>
      <ul class="plain">
        {delays.map(({ key, values, tone }) => (
          <li key={key} class={tone}>
            {t(key, values)}
          </li>
        ))}
      </ul>
    </div>
  );
}
