import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Screen } from './screen.ts';

test('on a terminal the live line is cut to the width and gone when a line stays', async () => {
  const { sink, text, written } = collector(true);
  const screen = new Screen(sink);
  const work = Promise.withResolvers<string>();
  const shown = screen.during(work.promise, () => 'a line that is far too long');
  await written;
  work.resolve('done');
  assert.equal(await shown, 'done');
  screen.line('stays');
  assert.equal(text(), '\r\u001b[Ka line th\r\u001b[Kstays\n');
});

test('work that fails is told to the caller, and a text that fails is not', async () => {
  const { sink, text } = collector(true);
  const failing = Promise.reject(new Error('the work'));
  const shown = new Screen(sink).during(failing, () => Promise.reject(new Error('the text')));
  await assert.rejects(shown, /the work/);
  assert.equal(text(), '');
});

test('elsewhere nothing but whole lines is written', async () => {
  const { sink, text } = collector(false);
  const screen = new Screen(sink);
  await screen.during(Promise.resolve(), () => 'live');
  screen.line('stays');
  assert.equal(text(), 'stays\n');
});

function collector(isTTY: boolean) {
  let all = '';
  const first = Promise.withResolvers<string>();
  const write = (text: string): void => {
    all += text;
    first.resolve(text);
  };
  return { sink: { isTTY, columns: 10, write }, text: () => all, written: first.promise };
}
