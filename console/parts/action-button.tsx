import type { ComponentChildren } from 'preact';
import { canAct, needsSignIn } from '../data/session.ts';
import { t } from '../language/language.ts';
import { Icon } from './icon.tsx';

interface ActionButtonProps {
  /** Further classes: small, danger. */
  kind?: string;
  disabled?: boolean;
  /** Absent: the button submits its form. */
  onClick?: () => void;
  children: ComponentChildren;
}

/** A button for signed-in users. For others it has a lock, and asks for a sign-in first. */
export function ActionButton({ kind = '', disabled = false, onClick, children }: ActionButtonProps) {
  const isLocked = needsSignIn();
  return (
    <button
      type={onClick === undefined ? 'submit' : 'button'}
      class={`button ${kind} ${isLocked ? 'locked' : ''}`}
      title={isLocked ? t('signIn.toUse') : undefined}
      disabled={disabled || !canAct()}
      onClick={onClick}
    >
      {isLocked ? <Icon name="lock" /> : null}
      {children}
    </button>
  );
}
