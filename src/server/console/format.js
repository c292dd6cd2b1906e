// Numbers, sizes and times as people read them.

const numbers = new Intl.NumberFormat('en');
const clock = new Intl.DateTimeFormat('en-GB', {
  hour: '2-digit', minute: '2-digit', second: '2-digit', fractionalSecondDigits: 3,
});
const date = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'medium' });

export const count = (number) => numbers.format(number);

export function bytes(size) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${unit && size < 10 ? size.toFixed(1) : Math.round(size)} ${units[unit]}`;
}

export function rate(perSecond) {
  if (perSecond === 0) return '0/s';
  return perSecond < 10 ? `${perSecond.toFixed(1)}/s` : `${count(Math.round(perSecond))}/s`;
}

// The time from one moment to another, both in microseconds since 1970.
export function span(from, to) {
  const seconds = Math.max(0, (to - from) / 1e6);
  const [size, unit] =
    seconds < 90 ? [1, 's'] : seconds < 5400 ? [60, 'min'] : seconds < 129600 ? [3600, 'h'] : [86400, 'd'];
  return `${Math.round(seconds / size)} ${unit}`;
}

export const ago = (time, now) => (now - time < 2e6 ? 'just now' : `${span(time, now)} ago`);

export const moment = (micros) => date.format(micros / 1000);
export const timeOf = (text) => clock.format(new Date(text));
