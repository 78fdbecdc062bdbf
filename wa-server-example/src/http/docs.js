'use strict';
(async () => {
  const main = document.getElementById('main');
  const make = (tag, text, ...children) => {
    const element = document.createElement(tag);
    if (text) element.textContent = text;
    element.append(...children);
    return element;
  };
  const doc = await (await fetch('openapi.json')).json();
  const resolve = (schema) => {
    let found = schema;
    for (let hops = 0; found && found.$ref && hops < 10; hops += 1) {
      found = doc.components.schemas[found.$ref.split('/').pop()];
    }
    return found || {};
  };
  const example = (schema, depth = 0) => {
    const known = resolve(schema);
    if (known.example !== undefined) return known.example;
    const choice = (known.oneOf || known.anyOf || known.allOf || []).find((one) => one.type !== 'null');
    if (choice) return example(choice, depth);
    const type = Array.isArray(known.type) ? known.type.find((one) => one !== 'null') : known.type;
    if (known.enum) return known.enum[0];
    if (depth > 6) return null;
    if (type === 'array') return [example(known.items, depth + 1)];
    if (known.properties) {
      return Object.fromEntries(Object.entries(known.properties).map(([name, one]) => [name, example(one, depth + 1)]));
    }
    if (type === 'integer' || type === 'number') return 0;
    if (type === 'boolean') return false;
    if (type === 'string') return known.format || 'text';
    return {};
  };
  const fields = (schema) => {
    const known = resolve(schema);
    const rows = Object.entries(known.properties || {}).map(([name, one]) => {
      const inner = resolve(one);
      const types = [one.type || inner.type || 'object'].flat().filter((type) => type !== 'null').join(', ');
      return make('tr', '', make('td', name), make('td', types), make('td', one.description || inner.description || ''));
    });
    return rows.length ? make('table', '', ...rows) : make('p', known.description || '');
  };
  const body = (content) => Object.entries(content || {}).flatMap(([type, media]) => [
    make('p', type),
    ...(media.schema ? [fields(media.schema), make('pre', JSON.stringify(example(media.schema), null, 2))] : []),
  ]);
  const groups = new Map();
  for (const [path, item] of Object.entries(doc.paths)) {
    for (const [method, operation] of Object.entries(item)) {
      if (!operation.responses) continue;
      const parameters = (operation.parameters || []).map((one) =>
        make('tr', '', make('td', one.name), make('td', one.in), make('td', one.description || '')));
      const inside = make('div', '', make('p', operation.description || operation.summary || ''),
        make('p', operation.security ? 'Needs a login.' : 'Public.'));
      if (parameters.length) inside.append(make('h4', 'Parameters'), make('table', '', ...parameters));
      if (operation.requestBody) inside.append(make('h4', 'Body'), ...body(operation.requestBody.content));
      for (const [status, answer] of Object.entries(operation.responses)) {
        if (status === 'default') continue;
        inside.append(make('h4', `${status} ${answer.description || ''}`), ...body(answer.content));
      }
      const details = make('details', '', make('summary', '', make('b', method.toUpperCase()), make('code', path),
        make('span', operation.summary || '')), inside);
      details.dataset.words = `${method} ${path} ${operation.summary || ''}`.toLowerCase();
      const tag = (operation.tags || ['other'])[0];
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push(details);
    }
  }
  main.replaceChildren(make('p', doc.info.description));
  for (const [tag, all] of groups) main.append(make('section', '', make('h2', tag), ...all));
  document.getElementById('find').addEventListener('input', (event) => {
    const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const details of main.querySelectorAll('details')) {
      details.hidden = !words.every((word) => details.dataset.words.includes(word));
    }
    for (const section of main.querySelectorAll('section')) {
      section.hidden = !section.querySelector('details:not([hidden])');
    }
  });
})();
