// The slider over the policies: shows the answers of the model it stands at, for every prompt.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("answers").textContent);
  const slider = document.getElementById("position");
  const label = document.getElementById("weights");
  const cards = [...document.querySelectorAll("[data-prompt]")].map((card) => ({
    title: card.querySelector(".title"),
    flag: card.querySelector(".flag"),
    text: card.querySelector(".text"),
    rewards: [...card.querySelectorAll(".reward")],
  }));
  const number = (value, sign) =>
    (sign && value >= 0 ? "+" : "") + value.toFixed(2).replace("-", "\u2212");
  let asked = false;

  const family = () => document.querySelector("input[name=family]:checked");

  function show() {
    asked = false;
    const chosen = family();
    const { positions, answers } = data[chosen.value];
    const position = Number(slider.value);
    const model = positions[position];
    label.textContent = model;
    slider.setAttribute("aria-valuetext", model);
    cards.forEach((card, prompt) => {
      const [response, rewards, cause] = answers[position][prompt];
      card.title.textContent = chosen.dataset.title + ": " + model;
      card.flag.textContent = cause && "collapsed: " + cause;
      card.text.textContent = response.trim() ? response : "(empty response)";
      card.rewards.forEach((cell, index) => {
        const base = Number(cell.dataset.base);
        cell.querySelector("b").textContent = number(rewards[index], false);
        cell.querySelector("small").textContent = number(rewards[index] - base, true);
      });
    });
  }

  // Families differ in their models: the one of the same name stays, or else the same share of the way.
  function change() {
    const before = label.textContent;
    const share = Number(slider.value) / Math.max(Number(slider.max), 1);
    const { positions } = data[family().value];
    const same = positions.indexOf(before);
    slider.max = positions.length - 1;
    slider.value = same >= 0 ? same : Math.round(share * (positions.length - 1));
    const ends = document.querySelectorAll("#slider .ends span");
    ends[0].textContent = positions[0];
    ends[1].textContent = positions.length > 1 ? positions[positions.length - 1] : "";
    ask();
  }

  // Once per frame, however fast the slider is dragged.
  const ask = () => {
    if (!asked) requestAnimationFrame(show);
    asked = true;
  };
  slider.addEventListener("input", ask);
  document.querySelectorAll("input[name=family]").forEach((radio) => radio.addEventListener("change", change));
  document.getElementById("slider").hidden = false;
  show();
})();
