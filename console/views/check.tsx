import { useState } from 'preact/hooks';
import { apiPath } from '../data/api.ts';
import { live } from '../data/live.ts';
import type { Check, ClashReport, Upstreams } from '../data/model.ts';
import { useQuery } from '../data/query.ts';
import { findDelays } from '../data/delays.ts';
import { t } from '../language/language.ts';
import { Loaded } from '../parts/async.tsx';
import { ImageForm } from '../parts/image-form.tsx';
import { Badge, Section, type Tone } from '../parts/marks.tsx';
import { Digest, Foreign } from '../parts/names.tsx';
import { When } from '../parts/time.tsx';

/** Checks one image: whether it would be served, from where, and what currently delays it. */
export function CheckImage() {
  const [typed, setTyped] = useState('');
  const [asked, setAsked] = useState('');
  return (
    <Section id="check" title={t('check.title')}>
      <ImageForm
        id="check-image"
        label={t('check.label')}
        value={typed}
        onInput={setTyped}
        onSubmit={() => setAsked(typed.trim())}
        disabled={typed.trim() === ''}
      >
        {t('check.button')}
      </ImageForm>
      <div aria-live="polite">{asked === '' ? null : <Answer key={asked} image={asked} />}</div>
    </Section>
  );
}

function Answer({ image }: { image: string }) {
  const check = useQuery<Check>(apiPath('/api/check', { image }));
  const upstreams = useQuery<Upstreams>('/api/upstreams');
  const clash = useQuery<ClashReport>('/api/clash');
  return (
    <Loaded query={check}>
      {(found) => (
        <div class="panel stack">
          <p class="row">
            <Badge tone={found.served ? 'good' : 'bad'}>{t(found.served ? 'check.served' : 'check.notServed')}</Badge>
            <b>
              <Foreign text={found.image} />
            </b>
          </p>
          <p>
            <Foreign text={found.reason} />
          </p>
          <Facts check={found} />
          <Delays check={found} upstreams={upstreams.data} clash={clash.data} />
        </div>
      )}
    </Loaded>
  );
}

const ANSWER_TONES: Record<Check['upstream']['answer'], Tone> = {
  found: 'good',
  absent: 'warning',
  refused: 'bad',
  limited: 'bad',
  unreachable: 'bad',
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
        {upstream.answer === 'found' ? null : <Foreign text={upstream.message} />}
      </dd>
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
      {rule === null ? null : (
        <>
          <dt>{t('check.rule')}</dt>
          <dd>
            <code>{rule}</code>
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

function Delays({ check, upstreams, clash }: { check: Check; upstreams: Upstreams | undefined; clash: ClashReport | undefined }) {
  const { repository } = check;
  if (repository === null) return null;
  const running = (live.downloads.value?.downloads ?? []).filter((download) => download.repository === repository);
  const name = repository.split('/', 1)[0];
  const upstream = upstreams?.upstreams.find((own) => own.name === name);
  const delays = findDelays({ upstream, clash, downloads: running, isStored: check.stored === 'complete' });
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
