// Search by a picture that is chosen, dropped or pasted; it goes to this machine's own server alone.

import { $, trouble, troubleIn } from "./review_dom.js";
import { upload } from "./review_api.js";
import { closeByClickBeside } from "./review_dialogs.js";

const LARGEST = 15 * 2 ** 20; // bytes; what the server takes, with room for the form around it

export class Search {
  /** found(view) is called with what a picture found, and with how to ask again. */
  constructor(found) {
    Object.assign(this, { found, dialog: $("#search") });
    closeByClickBeside(this.dialog);
    const [input, drop] = [$("input", this.dialog), $(".drop", this.dialog)];
    input.addEventListener("change", () => {
      if (input.files.length) this.send(input.files[0]);
      input.value = "";
    });
    document.addEventListener("paste", (event) => {
      const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
      if (file) this.send(file);
    });
    for (const name of ["dragover", "dragleave", "drop"]) {
      document.addEventListener(name, (event) => {
        event.preventDefault(); // or the browser would leave the page for the picture
        drop.classList.toggle("over", name === "dragover");
        if (name === "drop" && event.dataTransfer.files.length) this.send(event.dataTransfer.files[0]);
      });
    }
  }

  open() {
    troubleIn(this.dialog, "");
    this.dialog.showModal();
  }

  async send(file) {
    const tell = (words) => (this.dialog.open ? troubleIn(this.dialog, words) : trouble(words));
    tell("");
    if (file.size > LARGEST) {
      tell(`${file.name} has ${(file.size / 2 ** 20).toFixed(0)} MiB; the largest that is taken has 15 MiB. Make it smaller`);
      return;
    }
    try {
      const view = await upload(file);
      this.dialog.close();
      this.found(view, file);
    } catch (error) {
      tell(error.message);
    }
  }
}
