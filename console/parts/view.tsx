import type { ComponentChildren } from 'preact';

/** A view: a title, an introduction, and its parts. */
export function View({
  title,
  lead,
  aside,
  children,
}: {
  title: ComponentChildren;
  lead?: ComponentChildren;
  aside?: ComponentChildren;
  children: ComponentChildren;
}) {
  return (
    <div class="view">
      <header class="view-head">
        <div class="view-title">
          <h1>{title}</h1>
          {aside}
        </div>
        {lead === undefined ? null : <p>{lead}</p>}
      </header>
      {children}
    </div>
  );
}
