import { useEffect, useRef, useState } from 'preact/hooks';
import type { ComponentChildren } from 'preact';
import { lostSince } from './data/api.ts';
import { live } from './data/live.ts';
import { route, routeTo } from './data/router.ts';
import { askForSignIn, session, signOut } from './data/session.ts';
import { chooseTheme, theme, THEMES } from './data/theme.ts';
import { chooseLanguage, language, LANGUAGES, t, type Language } from './language/language.ts';
import { Announcements } from './parts/announce.tsx';
import { Select } from './parts/fields.tsx';
import { Icon } from './parts/icon.tsx';
import { Notice } from './parts/marks.tsx';
import { Ago } from './parts/time.tsx';
import { SignIn } from './views/sign-in.tsx';
import { VIEW_NAMES, type ViewName } from './views/names.ts';

/** The frame around a view: navigation, settings, messages. */
export function Shell({ view, children }: { view: ViewName; children: ComponentChildren }) {
  const content = useRef<HTMLElement>(null);
  return (
    <>
      <a
        class="skip"
        href="#content"
        onClick={(event) => {
          event.preventDefault(); // the fragment is the view
          content.current?.focus();
        }}
      >
        {t('skip')}
      </a>
      <Side view={view} />
      <main id="content" ref={content} tabIndex={-1}>
        <Lost />
        {children}
      </main>
      <Announcements />
      <SignIn />
    </>
  );
}

function Side({ view }: { view: ViewName }) {
  const [isOpen, setOpen] = useState(false);
  useEffect(() => setOpen(false), [route.value]);
  return (
    <header class={`side ${isOpen ? 'open' : 'closed'}`}>
      <div class="side-top">
        <span class="brand">
          <Mark />
          kube-registry
        </span>
        <button
          type="button"
          class="button quiet menu-button"
          aria-expanded={isOpen}
          aria-controls="views"
          onClick={() => setOpen(!isOpen)}
        >
          <Icon name={isOpen ? 'close' : 'menu'} />
          {t('menu')}
        </button>
      </div>
      <nav class="nav" id="views" aria-label={t('nav')}>
        <ul>
          {VIEW_NAMES.map((name) => (
            <li key={name}>
              <a href={routeTo(name)} aria-current={name === view ? 'page' : undefined}>
                <Icon name={name} />
                {t(`view.${name}`)}
                {name === 'downloads' && <RunningCount />}
              </a>
            </li>
          ))}
        </ul>
      </nav>
      <div class="side-foot">
        <Connection />
        <Account />
        <Select
          label={t('language')}
          value={language.value}
          choices={(Object.keys(LANGUAGES) as Language[]).map((value) => ({ value, text: LANGUAGES[value] }))}
          change={chooseLanguage}
          icon={<Icon name="language" />}
        />
        <Select
          label={t('theme')}
          value={theme.value}
          choices={THEMES.map((value) => ({ value, text: t(`theme.${value}`) }))}
          change={chooseTheme}
          icon={<Icon name="theme" />}
        />
      </div>
    </header>
  );
}

function RunningCount() {
  const total = live.downloads.value?.total ?? 0;
  if (total === 0) return null;
  return (
    <span class="nav-count">
      {total}
      <span class="hidden-text"> {t('nav.running')}</span>
    </span>
  );
}

function Connection() {
  const isLost = lostSince.value !== undefined;
  return <span class={`connection ${isLost ? 'lost' : ''}`}>{t(isLost ? 'connection.lost' : 'connection.live')}</span>;
}

function Account() {
  const known = session.value;
  if (known === undefined || !known.canLogIn) return null;
  return known.user === null ? (
    <button type="button" class="button" onClick={() => askForSignIn()}>
      <Icon name="person" />
      {t('signIn')}
    </button>
  ) : (
    <button type="button" class="button" onClick={() => void signOut()} title={known.user}>
      <Icon name="person" />
      {t('signOut', { user: known.user })}
    </button>
  );
}

/** Shown above every view while its data is out of date. */
function Lost() {
  const since = lostSince.value;
  return (
    <div role="alert">
      {since === undefined ? null : (
        <div class="lost-notice">
          <Notice tone="bad" title={t('lost.title')}>
            <p>
              {t('lost.text')} <Ago at={since} />
            </p>
          </Notice>
        </div>
      )}
    </div>
  );
}

function Mark() {
  return (
    <svg viewBox="0 0 32 32" aria-hidden="true">
      <rect width="32" height="32" rx="8" fill="#1f5eff" />
      <path d="M16 6l9 5v10l-9 5-9-5V11zM7 11l9 5 9-5M16 16v10" fill="none" stroke="#fff" stroke-width="2.4" stroke-linejoin="round" />
    </svg>
  );
}
